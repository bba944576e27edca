"""Graph neural networks made smaller: tasks, networks, training, pruning of weights and widths, quantization (chapter 08).

>>> from graphprune.compression import graph_data, networks, recipes, training
>>> task, recipe = graph_data.load("karate"), recipes.find("karate", "gcn")
>>> net = networks.build("gcn", task, recipe, seed=0)
>>> sum(p.numel() for p in net.parameters())  # 34 x 16 + 16 and 16 x 2 + 2
594
"""
