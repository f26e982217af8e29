"""The pages people see: server-rendered, without a line of JavaScript."""
