"""GRPO with PaW in TRL on ALFWorld.

    python examples/trl_alfworld.py --data-dir DIR            # the folder that holds json_2.1.1
    python examples/trl_alfworld.py --data-dir DIR --smoke    # a tiny random model, two steps

`paw report runs/trl-alfworld -o report.html` shows it.
"""

from trl_main import main

if __name__ == "__main__":
    main(
        "alfworld",
        max_turns=30,
        max_completion_length=4096,
        commands=("look", "inventory", "go to countertop 1", "go to fridge 1", "open fridge 1"),
    )
