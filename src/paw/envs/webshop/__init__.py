"""WebShop: shopping by search and clicks, from the official product files up.

    source = paw.envs.make("webshop", split="test", data_dir="path/to/files")

An own implementation of the text environment of Yao et al., "WebShop: Towards Scalable Real-World
Web Interaction with Grounded Language Agents" (NeurIPS 2022): same goals, pages, search results
and scores, without server, Java or HTML.
"""

from paw.envs.webshop.expert import WebShopExpert
from paw.envs.webshop.source import WebShop, WebShopEnvironment

__all__ = ["WebShop", "WebShopEnvironment", "WebShopExpert"]
