"""What the simulated shop sells, and what people come for."""

from __future__ import annotations

MAKERS = (
    "Alder",
    "Bramble",
    "Corvid",
    "Dunlin",
    "Everly",
    "Fallow",
    "Gannet",
    "Harrow",
    "Isla",
    "Juniper",
    "Kestrel",
)

CATEGORIES: dict[str, tuple[str, ...]] = {
    "tents": ("two-person tent", "family tent", "tarp", "bivvy bag", "hammock", "tent footprint"),
    "stoves": ("gas stove", "alcohol stove", "pot set", "kettle", "wind shield", "charcoal grill"),
    "torches": ("head torch", "camp lantern", "pocket torch", "battery pack", "glow sticks"),
    "boots": ("hiking boots", "wellingtons", "trail shoes", "gaiters", "wool socks", "insoles"),
    "packs": ("day pack", "trekking pack", "rain cover", "dry bag", "shoulder bag", "pannier"),
    "bottles": ("steel bottle", "soft flask", "filter bottle", "thermos", "bottle cage"),
    "watches": ("GPS watch", "heart-rate strap", "stopwatch", "watch band", "cycle computer"),
    "headphones": ("sports earbuds", "noise-cancelling headphones", "headset", "small speaker"),
    "cameras": ("mirrorless camera", "film camera", "macro lens", "travel tripod", "memory card"),
    "cups": ("enamel mug", "espresso cups", "travel cup", "tea bowl", "hand grinder", "tea tin"),
    "books": ("field guide", "cookbook", "picture book", "crime novel", "notebook", "atlas"),
    "tools": ("cordless drill", "screwdriver set", "hand saw", "tyre levers", "mini pump"),
    "lamps": ("desk lamp", "clamp lamp", "floor lamp", "LED bulbs", "smart plug", "string lights"),
    "knives": ("chef's knife", "folding knife", "whetstone", "chopping board", "secateurs"),
    "seeds": ("tomato seeds", "herb seeds", "wildflower mix", "seed tray", "bird seed"),
}

# Each intent wants four categories, the first most. They overlap on purpose: the last purchase
# alone seldom tells the intent, the purchases before it do.
INTENTS: dict[str, tuple[str, str, str, str]] = {
    "camping": ("tents", "stoves", "torches", "cups"),
    "hiking": ("boots", "packs", "bottles", "torches"),
    "bikepacking": ("tools", "bottles", "tents", "packs"),
    "running": ("watches", "headphones", "bottles", "torches"),
    "travelling": ("packs", "cameras", "headphones", "books"),
    "photography": ("cameras", "packs", "torches", "watches"),
    "slow mornings": ("cups", "books", "lamps", "stoves"),
    "outdoor cooking": ("stoves", "knives", "cups", "lamps"),
    "gardening": ("seeds", "tools", "boots", "knives"),
    "foraging": ("knives", "books", "boots", "seeds"),
    "home office": ("lamps", "headphones", "cups", "watches"),
    "workshop": ("tools", "lamps", "knives", "headphones"),
    "bird watching": ("cameras", "books", "boots", "seeds"),
    "fishing": ("knives", "boots", "bottles", "torches"),
    "festival": ("tents", "bottles", "headphones", "cups"),
}
