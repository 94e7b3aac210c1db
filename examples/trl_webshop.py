"""GRPO with PaW in TRL on WebShop.

    python examples/trl_webshop.py --data-dir DIR            # the folder of the product files
    python examples/trl_webshop.py --data-dir DIR --smoke    # a tiny random model, two steps

`paw report runs/trl-webshop -o report.html` shows it.
"""

from trl_main import main

if __name__ == "__main__":
    main(
        "webshop",
        max_turns=15,
        max_completion_length=6144,
        commands=("search[shoes]", "search[lamp]", "click[back to search]", "click[next >]"),
    )
