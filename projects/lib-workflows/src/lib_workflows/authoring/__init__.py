"""What a workflow's author writes with: decorators, the context, what can be asked for, messages, queues, schedules."""
