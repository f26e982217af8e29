"""AppService: runs many types of asynchronous, event-driven workflow, durably, behind one REST API."""
