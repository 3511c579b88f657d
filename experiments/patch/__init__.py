"""What carries the difference between two texts?"""
