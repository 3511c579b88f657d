"""What do the vectors know? Sites, words in context, reductions, clusters, topics and maps: embed.py."""
