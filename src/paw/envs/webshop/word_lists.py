"""Word lists of the reward."""

# The colours of the original option comparison, in its order: the first one contained wins.
# (word list of princeton-nlp/WebShop, MIT licence)
_COLORS = """
alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown
burgundy camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee
cognac copper coral cranberry cream crystal dark denim eggplant elephant espresso fuchsia gold
granite grape graphite grass gray green grey heather indigo ivory ivy khaki lavender lemon
leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom
mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal
rust sand sapphire seashell silver skull slate steel stone stonewash sunflower tan taupe teal
tiger turquoise violet walnut wheat white wine yellow
"""
COLORS = tuple(_COLORS.split())

# Words of product titles that the noun rule does not take for nouns.
_NOT_NOUNS = """
a about above across added adjustable after again against all along also although always am
amazing among an and anti any are around as assembled at attached automatic based be beautiful
because been before behind being below beneath beside besides best between beyond big black
blue both breathable bright brown built but by can casual cheap classic clean clear coated
colored comfortable compatible complete cooked cool could crafted cute dark deep designed did
different disposable do does double down dried dry durable during each easy eight either
electric elegant else every except extra fashionable fast few fine first fitted five flat
flavored flexible folded for formal four framed free fresh from frozen full fully fun funny
further gluten good gray great green grey had handmade happy has have he healthy heavy her
here hers high him his hot how however i ideal if in individual inside into is it its just
large let light lightweight long loose low luxury machine made main making may me medium might
mini modern more most mounted multi must my natural near neither never new next nice nine no
non nor not now of off often old on once one only onto or orange organic original other our
ours out outside over own packed padded painted per perfect personal pink plain plus portable
premium pretty printed professional pure purple quick quilted ready real rechargeable red
refurbished removable renewed replaced resistant reusable roasted round rustic safe scented
sealed second seven sexy she shiny short should simple since single six sized sleeved slim
small smart smooth so soft solid some special square stainless still stretch stretchy strong
stuffed styled stylish such super sweet tall ten than that the their theirs them then there
these they thick thin third this those though three through tiny to too towards traditional
tufted twelve two ultra under unique unisex universal unscented until up upgraded upon us used
using vegan very via vintage warm was washable waterproof we wearing were wet what when where
which while white who whom whose why wide will wireless with within without wooden would
yellow yet you your yours yummy
"""
NOT_NOUNS = frozenset(_NOT_NOUNS.split())
