"""The pure half of scheduling: requests, filters, weights, drivers and plans, over candidates as data."""
