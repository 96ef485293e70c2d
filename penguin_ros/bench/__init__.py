"""What a frame costs: policies measured side by side on the same footage."""
