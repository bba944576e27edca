"""Pruning as a game: environment, observation, rewards, agent, and what the agent is compared with (chapter 4)."""
