"""What services may know of each other: one module a service, holding its views, its errors and its events."""
