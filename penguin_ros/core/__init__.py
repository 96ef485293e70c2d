"""The thinking: frames, keyframes, token budgets, the streaming window, decoding, grounding. numpy, OpenCV and Pillow only."""
