"""ALFWorld, text version: the official game files played by an engine of our own."""

from paw.envs.alfworld.source import Alfworld, AlfworldEnvironment

__all__ = ["Alfworld", "AlfworldEnvironment"]
