"""How EMER-Sketch is described in English: phrases for every sign of a face, voice, text act and meaning.

`|` in a phrase is where a degree may stand. Phrases name no emotion; only the conclusion does.
"""

SIGNS: dict[str, tuple[str, ...]] = {
    "brows_rest": ("the brows|rest", "the forehead|stays smooth", "the brows|hardly move"),
    "brows_inner": ("the inner brows|rise", "the brows|slant up in the middle", "the inner ends of the brows|lift"),
    "brows_arch": ("both brows|arch high", "the brows|jump up", "the whole brows|rise in an arch"),
    "brow_one": ("one brow is|raised", "a single brow|lifts", "one brow|goes up"),
    "brows_low": ("the brows|lower", "the brows|draw down", "the brows are|pulled together"),
    "eyes_straight": ("the eyes|look straight ahead", "the gaze is|steady", "the gaze|stays even"),
    "eyes_warm": ("the eyes|narrow warmly", "the lower lids|push up", "the eyes|crinkle"),
    "eyes_shut": ("the eyes are|shut", "the lids|squeeze shut", "the eyes|close tightly"),
    "eyes_wide": ("the eyes|widen", "the upper lids|shoot up", "the eyes|show their whites"),
    "lids_tight": ("the lids|tighten", "the eyes|narrow to slits", "the look|hardens"),
    "lids_droop": ("the lids|droop", "the eyes stay|half-closed", "heavy lids|hang low"),
    "gaze_down": ("the gaze|drops down", "the eyes|look down", "the head is|bowed"),
    "gaze_aside": ("the gaze|slides aside", "the eyes|glance sideways", "the eyes|turn away"),
    "tears": ("tears|run down", "the eyes|fill with tears", "tears|appear"),
    "cheeks_up": ("the cheeks|rise", "the cheeks|push up", "the cheeks are|lifted"),
    "blush": ("the cheeks|turn red", "the face|flushes", "the skin|blushes"),
    "mouth_level": ("the mouth|stays level", "the lips|rest together", "the mouth is|straight"),
    "mouth_smile": ("the lip corners|rise", "the mouth|curves upward", "the corners of the mouth|lift"),
    "mouth_polite": ("the closed lips|curve up", "the pressed lips|form a smile", "a closed mouth|curves upward"),
    "mouth_laugh": ("the mouth|opens wide in a laugh", "the upturned mouth is|wide open", "the jaw|drops in a laugh"),
    "mouth_one": ("one lip corner|rises", "one side of the mouth|lifts", "the mouth|curls up on one side"),
    "mouth_down": ("the lip corners|sink", "the mouth|turns down", "the corners of the mouth|drop"),
    "lips_pressed": ("the lips|press tight", "the lips are|pressed together", "the mouth is|pressed thin"),
    "lips_stretched": ("the lips|stretch sideways", "the mouth is|stretched wide", "the lips are|pulled back flat"),
    "lips_pushed": ("the lips|push forward", "the lips are|pursed", "the mouth|puckers"),
    "mouth_open": ("the jaw|drops", "the mouth|falls open", "the mouth|opens round"),
    "teeth": ("the teeth are|bared", "the lips|draw back from the teeth", "the open mouth|shows the teeth"),
    "nose": ("the nose|wrinkles", "the nose is|wrinkled up", "folds|form beside the nose"),
    "upper_lip": ("the upper lip|curls", "the upper lip is|raised", "the upper lip|pulls up"),
}

SEEN_OPENINGS = ("In the video, ", "On the face, ", "In the picture, ", "In the frames, ", "In the clip's frames, ")
TIMINGS = {
    "early": (
        "building up early and easing at the end",
        "soon at its peak, then slowly relaxing",
        "strongest near the start and fading later",
        "which comes at once and wears off",
    ),
    "late": (
        "building up slowly and strongest at the end",
        "hardly there at first, then growing",
        "which comes late and grows to the end",
        "at its peak only in the last moments",
    ),
    "held": (
        "held through the whole clip",
        "which lasts from start to end",
        "without letting go until the end",
        "steadily all through the clip",
    ),
}
STILL = ("from start to end", "all through the clip", "with hardly any change over time", "and nothing shifts")
FIRST = ("at first ", "to begin with, ", "for the first half, ", "in the beginning, ")
THEN = (", then ", ", but then ", ", and later ", ", after which ", ", until ")
FACE_DEGREES = {"slight": ("slightly",), "full": ("strongly", "")}

# voice -> what it is like, and what it does
HEARD = {
    "calm": (
        ("even", "steady", "smooth", "relaxed", "level"),
        ("at an unhurried pace", "and the pitch moves gently", "with nothing forced in it", "and the words flow easily"),
    ),
    "bright": (
        ("high", "lively", "quick", "ringing", "animated"),
        (
            "with wide swings of pitch",
            "and the melody leaps up and down",
            "rising far on every stress",
            "and the pitch keeps jumping up",
        ),
    ),
    "dull": (
        ("flat", "slow", "dark", "dragging", "monotonous"),
        ("with almost no melody", "and stays on one low note", "like a single drawn line", "and every word drags"),
    ),
    "harsh": (
        ("loud", "hard", "rough", "sharp", "forceful"),
        (
            "with force on every word",
            "and has a grating edge",
            "and each word is hammered out",
            "and the loud words grate",
        ),
    ),
    "trembling": (
        ("shaky", "wavering", "unsteady", "thin", "quavering"),
        (
            "and the pitch quivers all the time",
            "with a quiver in every long sound",
            "and keeps shaking up and down",
            "and no word stays steady",
        ),
    ),
    "breathy": (
        ("breathy", "soft", "airy", "hushed", "quiet"),
        ("close to a whisper", "with much air and little tone", "and air runs through every word", "almost a whisper"),
    ),
    "hesitant": (
        ("halting", "broken", "stumbling", "interrupted", "faltering"),
        (
            "with pauses between the words",
            "and it stops again and again",
            "and gaps open after a few words",
            "with long pauses in it",
        ),
    ),
    "laughing": (
        ("chuckling", "giggling", "bouncing", "bubbling", "laughing"),
        (
            "with bursts of laughter between the words",
            "and breaks into laughter again and again",
            "and a laugh runs through every word",
            "and laughs keep cutting in",
        ),
    ),
}
HEARD_OPENINGS = (
    "In the audio, the voice is",
    "The voice is",
    "The voice sounds",
    "The speech is",
    "The tone of the voice is",
    "The speech sounds",
    "In the audio, the speech is",
)
VOICE_DEGREES = {"slight": ("slightly ",), "full": ("clearly ", "")}

ACTS = {
    "praise": (
        "the words praise someone",
        "the subtitle gives praise",
        "the words are full of praise",
        "the sentence is praise",
    ),
    "good_news": (
        "the words bring good news",
        "the subtitle is good news",
        "the words tell good news",
        "the sentence is good news",
    ),
    "promise": (
        "the words make a promise",
        "the subtitle is a promise",
        "the words agree to help",
        "the sentence promises something",
    ),
    "bad_news": (
        "the words bring bad news",
        "the subtitle is bad news",
        "the words tell of a loss",
        "the sentence reports a loss",
    ),
    "complaint": (
        "the words complain",
        "the subtitle is a complaint",
        "the words blame someone",
        "the sentence finds fault",
    ),
    "warning": (
        "the words warn of a danger",
        "the subtitle is a warning",
        "the words are a warning",
        "the sentence warns someone",
    ),
    "apology": (
        "the words ask for pardon",
        "the subtitle is an apology",
        "the words are an apology",
        "the sentence makes an apology",
    ),
    "remark": (
        "the words are a plain remark",
        "the subtitle is small talk",
        "the words state a fact",
        "the sentence is small talk",
    ),
}
GIVEN = (
    "given the face",
    "with such a face",
    "beside this face",
    "seen with the face",
    "with the face in view",
    "taken with the face",
)
# Act, meaning and what it is given, in order.
SAID = ("{act}; {given}, {meaning}.", "{act}, and {given} {meaning}.", "{act}, but {given} it shows that {meaning}.")

# text act -> side of the face -> ways to say what the words mean
MEANINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "praise": {
        "glad": ("the praise is meant with all the heart", "the praise honors someone", "the praise shares in a success"),
        "composed": ("the praise is a mere formality", "the praise is polite routine", "the praise costs little"),
        "hurting": ("the praise hides a wound", "praising someone else is painful", "the praise comes at a price"),
        "hostile": ("the praise is not meant", "the praise means the opposite", "the praise is mockery"),
    },
    "good_news": {
        "glad": ("the good news cannot be held back", "the good news bursts out", "the good news is pure delight"),
        "composed": (
            "the good news ends a long strain",
            "the good news takes a load off",
            "the good news lets one breathe again",
        ),
        "hurting": (
            "the good news comes too late",
            "the good news is less than was wanted",
            "the good news leaves something missing",
        ),
        "hostile": (
            "the good news is looked down on",
            "the good news is a triumph over others",
            "the good news is waved away",
        ),
    },
    "promise": {
        "glad": ("the promise is a pleasure to make", "the help is offered from the heart", "the promise is freely given"),
        "composed": ("the promise is a simple matter", "the promise is made soberly", "the promise can be relied on"),
        "hurting": (
            "the promise has to make up for something",
            "the promise comes from a bad conscience",
            "the promise pays an old debt",
        ),
        "hostile": (
            "the promise is made against the will",
            "the promise is wrung out",
            "the promise is one more burden",
        ),
    },
    "bad_news": {
        "glad": ("the pain of the loss is masked", "the bad news is smiled away", "the loss is hidden behind a front"),
        "composed": (
            "the bad news strikes behind a composed face",
            "the loss is kept inside",
            "the bad news goes deeper than it shows",
        ),
        "hurting": ("the loss is felt in full", "the bad news is mourned openly", "the loss weighs on everything"),
        "hostile": (
            "the loss is felt to be unfair",
            "the bad news is one blow too many",
            "the bad news is fought against",
        ),
    },
    "complaint": {
        "glad": ("the complaint is only teasing", "the complaint is not serious", "the complaint is an old joke"),
        "composed": (
            "the complaint gives up on something",
            "the complaint states what was missed",
            "the complaint is a sober reckoning",
        ),
        "hurting": (
            "the complaint comes from a wound",
            "the complaint is a cry of pain",
            "the complaint asks to be seen",
        ),
        "hostile": (
            "the complaint is fully meant",
            "the complaint was bottled up too long",
            "the complaint is an attack",
        ),
    },
    "warning": {
        "glad": (
            "the warning is a playful threat",
            "the warning makes fun of the danger",
            "the warning is half a game",
        ),
        "composed": (
            "the warning is in dead earnest",
            "the warning comes from care",
            "the warning leaves no room for error",
        ),
        "hurting": (
            "the danger is felt as real and near",
            "the warning is a cry of alarm",
            "the warning shakes whoever gives it",
        ),
        "hostile": ("the warning is a threat", "the warning barely hides a threat", "the warning is the last one"),
    },
    "apology": {
        "glad": ("the apology is for a small slip", "the apology smiles at a slip", "the apology tries to laugh it off"),
        "composed": (
            "the apology is a formality",
            "the apology is mere manners",
            "the apology is said for form's sake",
        ),
        "hurting": ("the apology is deeply meant", "the apology begs for pardon", "the apology comes from the conscience"),
        "hostile": ("the apology is not meant", "the apology is a jab", "the apology is turned against the other"),
    },
    "remark": {
        "glad": ("the small talk is at ease", "the plain remark is easy company", "the small talk is light"),
        "composed": (
            "the small talk only fills time",
            "the plain remark means just what it says",
            "the small talk carries no weight",
        ),
        "hurting": (
            "the small talk does not lift the mood",
            "the plain remark cannot cover the pain",
            "the small talk avoids the real subject",
        ),
        "hostile": (
            "the small talk is a dig at someone",
            "the plain remark has a sting",
            "the small talk puts others down",
        ),
    },
}

OPENERS = ("Therefore", "Taken together", "All in all", "Overall", "Thus", "In short")
SUBJECTS = ("the person", "the speaker", "this person")
VERBS = ("seems", "feels", "is", "appears")
