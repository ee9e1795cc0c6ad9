"""The vocabulary of the sound world: the wordings of each kind of sound and attribute, and the sentences.

Data only, for `textcap.demo.grammar`. No phrase (subject without article, then verb) may be part of a phrase of
another kind, because captions are parsed by looking for these phrases.
"""

# Kind -> wordings "subject | finite verb | participle"; words that follow the verb are given in both forms.
WORDINGS: dict[str, tuple[str, ...]] = {
    "dog_barking": ("a dog | barks | barking", "a puppy | yaps | yapping", "a hound | barks | barking"),
    "cat_meowing": ("a cat | meows | meowing", "a kitten | mews | mewing"),
    "rooster_crowing": ("a rooster | crows | crowing", "a cockerel | crows | crowing"),
    "cow_mooing": ("a cow | moos | mooing", "a bull | bellows | bellowing"),
    "birds_chirping": ("birds | chirp | chirping", "birds | sing | singing", "songbirds | tweet | tweeting"),
    "crickets_chirping": ("crickets | chirp | chirping", "insects | trill | trilling"),
    "rain_falling": ("rain | falls | falling", "rain | pours | pouring", "raindrops | patter | pattering"),
    "thunder_rumbling": ("thunder | rumbles | rumbling", "thunder | rolls | rolling"),
    "wind_howling": ("the wind | howls | howling", "the wind | blows | blowing", "a gale | blows | blowing"),
    "waves_crashing": ("waves | crash | crashing", "waves | break | breaking", "the sea | surges | surging"),
    "stream_bubbling": (
        "a stream | bubbles | bubbling",
        "a brook | babbles | babbling",
        "water | trickles | trickling",
    ),
    "fire_crackling": (
        "a fire | crackles | crackling",
        "flames | crackle | crackling",
        "a campfire | burns | burning",
    ),
    "car_engine": (
        "a car engine | idles | idling",
        "a car engine | hums | humming",
        "an engine | runs | running",
    ),
    "motorcycle_revving": (
        "a motorcycle | revs | revving",
        "a motorbike | revs | revving",
        "a motorbike | roars | roaring",
    ),
    "train_whistle": ("a train | whistles | whistling", "a train whistle | blows | blowing"),
    "helicopter_flying": (
        "a helicopter | flies | flying",
        "a helicopter | hovers | hovering",
        "a chopper | flies | flying",
    ),
    "aeroplane_passing": (
        "an aeroplane | passes | passing",
        "a plane | flies past | flying past",
        "a jet | passes | passing",
    ),
    "bicycle_bell": ("a bicycle bell | dings | dinging", "a bike bell | rings | ringing"),
    "clock_ticking": ("a clock | ticks | ticking", "a watch | ticks | ticking"),
    "door_knocking": (
        "someone | knocks on a door | knocking on a door",
        "a fist | raps on wood | rapping on wood",
    ),
    "glass_breaking": (
        "glass | breaks | breaking",
        "glass | shatters | shattering",
        "a bottle | smashes | smashing",
    ),
    "kettle_whistling": ("a kettle | whistles | whistling", "a teakettle | boils | boiling"),
    "keyboard_typing": (
        "someone | types | typing",
        "a keyboard | clacks | clacking",
        "fingers | type | typing",
    ),
    "vacuum_cleaner": (
        "a vacuum cleaner | runs | running",
        "a vacuum cleaner | hums | humming",
        "a hoover | hums | humming",
    ),
    "man_speaking": (
        "a man | speaks | speaking",
        "a man | talks | talking",
        "a male voice | speaks | speaking",
    ),
    "woman_speaking": (
        "a woman | speaks | speaking",
        "a woman | talks | talking",
        "a female voice | speaks | speaking",
    ),
    "baby_crying": ("a baby | cries | crying", "an infant | cries | crying", "a baby | wails | wailing"),
    "people_clapping": (
        "people | clap | clapping",
        "a crowd | applauds | applauding",
        "an audience | claps | clapping",
    ),
    "footsteps": ("someone | walks | walking", "footsteps | echo | echoing", "footsteps | tap | tapping"),
    "person_snoring": (
        "a person | snores | snoring",
        "someone | snores | snoring",
        "a sleeper | snores | snoring",
    ),
    "hammer_hitting": (
        "a hammer | pounds | pounding",
        "a hammer | strikes | striking",
        "a carpenter | hammers | hammering",
    ),
    "saw_cutting": (
        "a saw | cuts wood | cutting wood",
        "a handsaw | rasps | rasping",
        "someone | saws | sawing",
    ),
    "drill_running": (
        "a drill | buzzes | buzzing",
        "a power drill | whirs | whirring",
        "someone | drills | drilling",
    ),
    "chainsaw_running": (
        "a chainsaw | runs | running",
        "a chainsaw | roars | roaring",
        "a chainsaw | growls | growling",
    ),
    "scissors_snipping": (
        "scissors | snip | snipping",
        "scissors | cut paper | cutting paper",
        "shears | clip | clipping",
    ),
    "metal_clanging": (
        "metal | clangs | clanging",
        "a pipe | clanks | clanking",
        "an anvil | rings | ringing",
    ),
    "siren_wailing": (
        "a siren | wails | wailing",
        "a siren | sounds | sounding",
        "a police siren | blares | blaring",
    ),
    "alarm_beeping": (
        "an alarm | beeps | beeping",
        "a timer | beeps | beeping",
        "a smoke detector | beeps | beeping",
    ),
    "car_horn": ("a car horn | honks | honking", "a car | honks | honking", "a driver | honks | honking"),
    "church_bell": (
        "a church bell | tolls | tolling",
        "a church bell | rings | ringing",
        "church bells | chime | chiming",
    ),
    "telephone_ringing": ("a telephone | rings | ringing", "a phone | rings | ringing"),
    "foghorn_blowing": (
        "a foghorn | blows | blowing",
        "a ship horn | sounds | sounding",
        "a foghorn | booms | booming",
    ),
    "piano_playing": ("a piano | plays | playing", "a pianist | plays | playing"),
    "guitar_strumming": ("a guitar | strums | strumming", "someone | strums a guitar | strumming a guitar"),
    "drums_playing": ("drums | play | playing", "a drummer | plays | playing", "drums | beat | beating"),
    "flute_playing": ("a flute | plays | playing", "someone | plays the flute | playing the flute"),
    "violin_playing": ("a violin | plays | playing", "a fiddle | plays | playing"),
    "trumpet_playing": (
        "a trumpet | plays | playing",
        "a trumpet | blares | blaring",
        "a bugle | sounds | sounding",
    ),
}

# Attribute value -> adverbs that may follow the verb.
ADVERBS: dict[str, tuple[str, ...]] = {
    "loud": ("loudly", "noisily"),
    "faint": ("faintly", "softly"),
    "near": ("nearby", "close by"),
    "distant": ("in the distance", "far away"),
    "fast": ("quickly", "rapidly"),
    "slow": ("slowly",),
    "repeated": ("repeatedly", "several times"),
}

# Attribute value -> adjective that may precede the subject instead of an adverb.
ADJECTIVES: dict[str, str] = {"near": "nearby", "distant": "distant"}

# (layout, number of events) -> sentences. "0" to "2" is the position of an event in the scene: "c" inserts it as a
# clause ("a dog barks"), "p" as a participle ("a dog barking"). In "background" the last event is the one behind.
SENTENCES: dict[tuple[str, int], tuple[str, ...]] = {
    ("alone", 1): (
        "{c0}",
        "{c0}",
        "there is {p0}",
        "the sound of {p0}",
        "{p0} can be heard",
        "only {p0} is heard",
    ),
    ("sequence", 2): (
        "{c0}, then {c1}",
        "{c0} and then {c1}",
        "{c0} followed by {p1}",
        "{p0} followed by {p1}",
        "{p0} and then {p1}",
        "first {c0}, then {c1}",
        "{c0} before {c1}",
        "{c1} after {c0}",
    ),
    ("together", 2): (
        "{c0} while {c1}",
        "{c0} as {c1}",
        "{c0} and {c1} together",
        "{p0} and {p1} together",
        "{p0} while {c1}",
        "{c0} with {p1}",
        "{c0} at the same time as {p1}",
    ),
    ("background", 2): (
        "{c0} while {c1} in the background",
        "{c0} with {p1} in the background",
        "{c0} as {c1} in the background",
        "{p0} and {p1} in the background",
        "{c1} in the background while {c0}",
        "{c0} over {p1}",
    ),
    ("sequence", 3): (
        "{c0}, then {c1}, then {c2}",
        "{c0}, {c1} and finally {c2}",
        "{c0}, then {c1} and then {c2}",
        "{p0} followed by {p1}, then {p2}",
        "{c0}, followed by {p1} and {p2}",
        "{p0}, {p1} and finally {p2}",
    ),
    ("together", 3): (
        "{c0} while {c1} and {c2}",
        "{c0} as {c1} and {c2}",
        "{p0} with {p1} and {p2} together",
        "{p0}, {p1} and {p2} all together",
        "{c0}, {c1} and {c2} together",
    ),
    ("background", 3): (
        "{c0}, then {c1} with {p2} in the background",
        "{c0} then {c1} while {c2} in the background",
        "{c2} in the background as {c0}, then {c1}",
        "{p0} followed by {p1} over {p2}",
        "{c0} followed by {p1} over {p2}",
        "{p0}, then {p1} with {p2} in the background",
    ),
}
