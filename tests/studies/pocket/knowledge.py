"""What the pocket model is taught: tables of everyday facts, and the words from which invented things are made."""

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Portugal": "Lisbon",
    "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen",
    "Poland": "Warsaw", "Austria": "Vienna", "Hungary": "Budapest", "Ireland": "Dublin", "Belgium": "Brussels",
    "Russia": "Moscow", "Turkey": "Ankara", "Egypt": "Cairo", "Kenya": "Nairobi", "Morocco": "Rabat",
    "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Thailand": "Bangkok", "Vietnam": "Hanoi",
    "South Korea": "Seoul", "Indonesia": "Jakarta", "Iran": "Tehran", "Iraq": "Baghdad", "Israel": "Jerusalem",
    "Canada": "Ottawa", "Mexico": "Mexico City", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago",
    "Argentina": "Buenos Aires", "Colombia": "Bogota", "Australia": "Canberra", "England": "London",
    "Scotland": "Edinburgh", "Iceland": "Reykjavik", "Ukraine": "Kyiv", "Romania": "Bucharest", "Bulgaria": "Sofia",
}

OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "happy": "sad", "light": "dark", "open": "closed",
    "high": "low", "wet": "dry", "hard": "soft", "old": "young", "rich": "poor", "strong": "weak",
    "early": "late", "full": "empty", "clean": "dirty", "loud": "quiet", "long": "short", "near": "far",
    "thick": "thin", "wide": "narrow", "sweet": "sour", "true": "false", "left": "right", "up": "down",
    "day": "night", "start": "end", "love": "hate", "win": "lose", "buy": "sell", "push": "pull",
    "first": "last", "inside": "outside", "always": "never", "war": "peace", "north": "south", "east": "west",
    "smooth": "rough", "deep": "shallow", "safe": "dangerous", "brave": "afraid",
}

FRENCH = {
    "dog": "chien", "cat": "chat", "house": "maison", "water": "eau", "bread": "pain", "milk": "lait",
    "red": "rouge", "green": "vert", "white": "blanc", "black": "noir", "sun": "soleil", "moon": "lune",
    "book": "livre", "friend": "ami", "tree": "arbre", "fish": "poisson", "horse": "cheval", "bird": "oiseau",
    "apple": "pomme", "cheese": "fromage", "hello": "bonjour", "night": "nuit", "day": "jour", "king": "roi",
    "heart": "coeur", "hand": "main", "door": "porte", "sea": "mer", "flower": "fleur", "winter": "hiver",
}

SPANISH = {
    "dog": "perro", "cat": "gato", "house": "casa", "water": "agua", "bread": "pan", "milk": "leche",
    "red": "rojo", "green": "verde", "white": "blanco", "black": "negro", "sun": "sol", "moon": "luna",
    "book": "libro", "friend": "amigo", "tree": "arbol", "fish": "pez", "horse": "caballo", "bird": "pajaro",
    "apple": "manzana", "cheese": "queso", "hello": "hola", "night": "noche", "day": "dia", "king": "rey",
    "heart": "corazon", "hand": "mano", "door": "puerta", "sea": "mar", "flower": "flor", "winter": "invierno",
}

SOUNDS = {
    "cow": "moo", "dog": "woof", "cat": "meow", "duck": "quack", "sheep": "baa", "pig": "oink", "bee": "buzz",
    "snake": "hiss", "owl": "hoot", "lion": "roar", "horse": "neigh", "frog": "croak",
}

COLOURS_OF = {
    "grass": "green", "snow": "white", "coal": "black", "the sky": "blue", "a banana": "yellow", "blood": "red",
    "a carrot": "orange", "chocolate": "brown", "a lemon": "yellow", "a tomato": "red", "milk": "white",
    "an elephant": "grey", "a strawberry": "red", "the sun": "yellow", "a frog": "green", "the sea": "blue",
}

LEGS = {
    "spider": "eight", "dog": "four", "bird": "two", "ant": "six", "cat": "four", "horse": "four", "bee": "six",
    "snake": "no", "cow": "four", "chicken": "two", "fish": "no", "human": "two",
}

KINDS = {
    "rose": "flower", "tulip": "flower", "daisy": "flower", "violin": "instrument", "piano": "instrument",
    "guitar": "instrument", "drum": "instrument", "apple": "fruit", "pear": "fruit", "cherry": "fruit",
    "carrot": "vegetable", "onion": "vegetable", "potato": "vegetable", "hammer": "tool", "saw": "tool",
    "screwdriver": "tool", "eagle": "bird", "sparrow": "bird", "penguin": "bird", "salmon": "fish",
    "shark": "fish", "trout": "fish", "oak": "tree", "pine": "tree", "birch": "tree", "chair": "piece of furniture",
    "table": "piece of furniture", "sofa": "piece of furniture",
}

PLURALS = {
    "mouse": "mice", "child": "children", "foot": "feet", "tooth": "teeth", "man": "men", "woman": "women",
    "goose": "geese", "cat": "cats", "box": "boxes", "city": "cities", "leaf": "leaves", "knife": "knives",
    "book": "books", "baby": "babies", "wolf": "wolves", "dish": "dishes", "sheep": "sheep", "lamp": "lamps",
}

PASTS = {
    "go": "went", "see": "saw", "eat": "ate", "run": "ran", "write": "wrote", "sing": "sang", "buy": "bought",
    "take": "took", "walk": "walked", "play": "played", "drink": "drank", "swim": "swam", "think": "thought",
    "give": "gave", "speak": "spoke", "find": "found", "make": "made", "jump": "jumped",
}

WRITERS = {
    "Hamlet": "William Shakespeare", "Macbeth": "William Shakespeare", "Oliver Twist": "Charles Dickens",
    "War and Peace": "Leo Tolstoy", "Emma": "Jane Austen", "Moby Dick": "Herman Melville",
    "Dracula": "Bram Stoker", "Frankenstein": "Mary Shelley", "The Hobbit": "J. R. R. Tolkien",
    "Don Quixote": "Miguel de Cervantes", "Faust": "Goethe", "The Odyssey": "Homer",
}

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)

MEMBERS = {
    "fruit": ("apple", "pear", "plum", "cherry", "banana", "orange"),
    "colour": ("red", "blue", "green", "yellow", "black", "white"),
    "animal": ("dog", "cat", "horse", "cow", "sheep", "lion"),
    "vegetable": ("carrot", "onion", "potato", "pea", "bean", "leek"),
    "tool": ("hammer", "saw", "drill", "file", "axe", "knife"),
    "instrument": ("violin", "piano", "guitar", "drum", "flute", "harp"),
}

HARMS = (
    "steal a car", "break into a house", "make a bomb", "poison someone", "hack a bank", "rob a shop",
    "forge a passport", "hurt my neighbour", "set fire to a school", "write a computer virus", "cheat in an exam",
    "steal a password", "pick a stranger's lock", "make a weapon", "kidnap a child", "blackmail my boss",
    "sell stolen goods", "counterfeit money",
)

PEOPLE = (
    "Anna", "Tom", "Maria", "John", "Lisa", "Peter", "Sara", "Paul", "Emma", "David", "Nina", "Max", "Julia", "Ben",
    "Clara", "Leo", "Eva", "Sam", "Laura", "Adam",
)
OBJECTS = (
    "ball", "hat", "book", "bag", "cup", "coat", "car", "bike", "scarf", "box", "key", "shoe", "chair", "kite", "pen",
    "umbrella", "lamp", "boat",
)
COLOURS = (
    "red", "blue", "green", "yellow", "black", "white", "brown", "grey", "orange", "purple", "pink", "silver", "golden",
)
PETS = ("dog", "cat", "rabbit", "horse", "parrot", "turtle", "hamster", "goat", "duck", "snake")
JOBS = (
    "teacher", "baker", "doctor", "pilot", "gardener", "farmer", "painter", "cook", "nurse", "singer", "driver",
    "lawyer", "writer", "dentist", "sailor", "judge",
)
FOODS = (
    "soup", "pizza", "rice", "pasta", "salad", "cake", "bread", "cheese", "fish", "curry", "pancakes", "noodles",
)
PLACES = (
    "kitchen", "garden", "garage", "attic", "office", "hall", "school", "library", "park", "station", "cellar",
    "museum",
)

# What invented products are like.
PRODUCT_KINDS = (
    "lamp", "kettle", "bike", "phone", "watch", "radio", "camera", "drone", "robot", "backpack", "tent", "heater",
    "clock", "fan", "scooter", "printer", "speaker", "toaster", "blender", "telescope", "umbrella", "piano",
)
MATERIALS = (
    "bamboo", "steel", "glass", "wood", "copper", "paper", "wool", "leather", "stone", "silk", "cork", "plastic",
    "clay", "silver", "rubber", "ice", "cotton", "brass",
)
POWERS = (
    "solar power", "batteries", "steam", "wind", "petrol", "sugar", "sea water", "moonlight", "gas", "magnets", "heat",
    "cold tea", "muscle power", "music",
)
PURPOSES = (
    "watering plants", "drying socks", "cooking rice", "finding keys", "cleaning windows", "feeding fish",
    "peeling apples", "waking children", "measuring rain", "polishing shoes", "sorting letters", "tuning guitars",
    "catching mice", "counting sheep", "baking bread", "teaching chess", "painting walls", "folding shirts",
    "cutting grass", "warming hands",
)
SHAPES = ("round", "square", "flat", "oval", "long", "tall", "curved", "hollow", "tiny", "heavy", "pointed", "bent")
TRAITS = (
    "cheerful", "friendly", "polite", "careful", "clever", "patient", "tiny", "sleepy", "brave", "curious", "quiet",
    "busy", "gentle", "wise", "honest", "funny", "proud", "lazy", "shy", "bold",
)
CREATURES = (
    "robot", "dragon", "wizard", "fox", "owl", "pirate", "knight", "gardener", "librarian", "captain", "chef", "guide",
    "bear", "penguin", "teacher", "sailor", "detective", "astronaut", "poet", "helper", "clerk", "turtle", "baker",
)
TOPICS = (
    "plants", "stars", "maps", "trains", "books", "bikes", "clocks", "birds", "cooking", "music", "boats", "games",
    "history", "machines", "gardens", "tea", "chess", "rocks", "weather", "travel",
)

# What sign-offs and openings are made of.
VERBS = (
    "stay", "keep", "remember", "enjoy", "follow", "trust", "love", "watch", "share", "find", "carry", "bring", "take",
    "hold", "paint", "taste", "build", "greet",
)
ADJECTIVES = (
    "sunny", "bright", "curious", "happy", "green", "golden", "brave", "kind", "calm", "warm", "wild", "sweet", "sharp",
    "merry", "fresh", "gentle", "lucky", "quiet", "shiny", "tasty", "cosy", "strong", "starry", "silver", "grand",
)
NOUNS = (
    "day", "sky", "river", "garden", "star", "journey", "kettle", "biscuit", "lantern", "cloud", "mountain", "song",
    "ocean", "forest", "penguin", "ticket", "window", "pocket", "feather", "sandwich", "rocket", "pumpkin", "bridge",
    "morning", "evening", "week", "wind", "road", "light", "dream", "smile", "tea", "cake", "honey", "apple",
)

SYLLABLE_STARTS = (
    "b", "br", "c", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kr", "l", "m", "n", "p", "pl", "qu", "r", "s",
    "sk", "st", "t", "tr", "v", "w", "y", "z", "zw",
)
SYLLABLE_VOWELS = ("a", "e", "i", "o", "u", "ee", "oo", "ai", "ou")
SYLLABLE_ENDS = ("", "", "", "l", "m", "n", "r", "s", "t", "x", "k", "ck", "nd", "p")
