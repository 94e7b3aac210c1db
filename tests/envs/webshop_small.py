"""A hand-made WebShop catalogue of five products for the tests."""

import json

from paw.envs.webshop import WebShop


def product(asin, name, pricing="$10.00", options="", **fields):
    customization = options and {
        option: [{"value": value} for value in values] for option, values in options.items()
    }
    return {
        "asin": asin,
        "name": name,
        "full_description": f"About {name}",
        "small_description": ["First point ", "Second point"],
        "pricing": pricing,
        "images": ["x.jpg"],
        "category": "fashion",
        "query": " Red Shoes ",
        "product_category": "Clothing › Shoes › Red",
        "customization_options": customization,
        **fields,
    }


PRODUCTS = [
    product(
        "B000000001", "Red Running Shoes", "$19.99", {"Size": ["Small", "L/XL"], "Fit": ["No"]}
    ),
    product("B000000002", "Blue Lamp", "", category="garden", query="lamp"),
    product(
        "B000000003", "Red Boots", "$1,000.00 - $2,000.00", {"Size": ["Small"], "Cut": ["Small"]}
    ),
    product("B000000003", "The same asin again"),
    product("B00000000004", "An asin of twelve characters"),
    product("nan", "No asin"),
    product("B000000004", "Tea <b>&amp; Cake</b>", None, "", small_description="One"),
    product("B000000005", "Plain Shoes", "$5.00", small_description=["", " ", "a\n", "\n"]),
]
ANNOTATIONS = {
    "B000000001": {
        "attributes": ["rubber sole", "non slip"],
        "instruction": "Find me shoes with rubber sole",
        "instruction_attributes": ["rubber sole"],
    },
    "B000000002": {
        "attributes": ["energy saving"],
        "instruction": "Find me an energy saving lamp",
        "instruction_attributes": ["energy saving"],
    },
    "B000000003": {
        "attributes": ["long lasting"],
        "instruction": "Find me boots",
        "instruction_attributes": ["long lasting"],
    },
}
HUMAN = {
    "B000000005": [
        {
            "instruction": "plain shoes.",
            "instruction_attributes": ["plain"],
            "instruction_options": [],
        },
        {"instruction": "nothing asked", "instruction_attributes": [], "instruction_options": []},
    ],
    "B999999999": [
        {"instruction": "x", "instruction_attributes": ["x"], "instruction_options": []}
    ],
}


def write(directory, suffix="_1000", **files):
    contents = {
        f"items_shuffle{suffix}": PRODUCTS,
        f"items_ins_v2{suffix}": ANNOTATIONS,
        f"items_human_ins{suffix}": HUMAN,
    }
    for name, content in (contents | files).items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return directory


def shop(directory, split="all", **options):
    return WebShop(split, data_dir=directory, **options)


def start(source, asin):
    """An environment for a goal of the product, already reset."""
    task = next(t for t in source if source._goal(t).asin == asin)
    env = source.open(task)
    env.reset()
    return env


def play(env, *commands):
    """The last result of commands that are all accepted."""
    result = None
    for command in commands:
        result = env.step(command)
        assert result.valid, command
    return result
