"""What people say in EMER-Sketch, and how a clip is described: sentences, and phrases for every sign.

A description goes through what is seen, what is heard and what the words mean given the rest, and concludes; the opening of each
part names its modality. The held-out sentences use only words that some training sentence has.
"""

import re

import numpy as np

Bearing = tuple[str, bool]  # side of the face ("open", "hurting", "hostile"), whether the voice is warm


def _sentences(text: str) -> tuple[str, ...]:
    return tuple(re.split(r"(?<=[.?]) ", " ".join(text.split())))


# text act -> what is said in the training splits, and in the test splits
SENTENCES: dict[str, dict[str, tuple[str, ...]]] = {
    "praise": {
        "train": _sentences("""
You did a wonderful job on this. That was a really beautiful song you sang. I have never seen better work than yours. You
are the best teacher we ever had. Your cooking is simply the best in town. What a great idea you had this morning. You
handled that difficult guest so well. Nobody could have done this better than you. That is a lovely drawing you made. You
always know exactly the right words. Your speech tonight was truly impressive. I admire how patient you always are. You
played that game brilliantly, well done. Your garden looks absolutely beautiful this year. You have such a great sense of
humor. This is the finest cake I have tasted. You really are a talented young writer. Well done, your report was excellent.
You made everyone feel so welcome here. That dress looks wonderful on you. You are so good with little children. I love the
way you solved it. Your help today was simply amazing. You have done excellent work this week. What a brilliant answer you
gave her. You are an amazing friend to have. The way you dance is truly lovely. Your new story is really great. You look
fantastic in that coat. I am impressed by how fast you learn. You did that perfectly the first time. Such a clever plan, you
thought of everything. You are the kindest person I know. Your photos are better than anyone else's. That was a very brave
thing you did. You have a wonderful voice, truly.
"""),
        "held_out": _sentences("""
You gave a brilliant speech this morning. Your drawing is the best one here. That was an amazing dance, well done. What a
lovely garden you have made. Your cooking is truly excellent. I have never tasted a better cake. You solved that so
perfectly today. Your children are so kind and clever. That was a really beautiful story. That was excellent work from you.
You have a great sense for children. I admire the way you handled everyone.
"""),
    },
    "good_news": {
        "train": _sentences("""
I got the job I wanted. We finally won the match last night. The doctor says I am completely healthy. She said yes, we are
getting married. They found our lost dog this morning. I passed my driving test today. Our baby was born an hour ago. The
bank has agreed to the loan. My sister is coming home for good. We got the keys to our new house. The operation went well,
he is awake. I won first prize in the contest. They are giving all of us a raise. My book will be published this spring. The
rain has stopped, we can go. Our team reached the final for once. The test results came back all clear. I have been accepted
at the university. My parents have agreed to the wedding. He remembered my birthday and called me. We sold the house for a
good price. They want me to lead the project. The fever is gone, she is eating again. My brother passed every one of his
exams. We are going to have a baby. The lost suitcase has been found. I finally paid back all the money. The school is
giving her a scholarship. They accepted our offer this morning. My father can leave the hospital today. We got tickets for
the show tonight. The company just hired my best friend. The strike is over, trains run again. I got a letter, they chose
me. Grandma is walking again since yesterday. The holiday is booked, we leave on Friday.
"""),
        "held_out": _sentences("""
I passed all my exams this spring. My sister got the job today. They found my lost suitcase this morning. We won the final
last night. The doctor says she is healthy again. My brother is getting married on Friday. The baby is healthy and eating
well. Our offer was accepted an hour ago. They chose me to lead the team. He is awake and can leave the hospital. We finally
got tickets for the final. The bank is giving us the loan.
"""),
    },
    "bad_news": {
        "train": _sentences("""
My grandfather died early this morning. I lost my job last Friday. The house burned down during the night. We have to sell
the family farm. They cancelled the wedding last week. Our dog was hit by a car. I failed the exam for the second time. She
is leaving me for someone else. The doctor found something on the scan. The factory is closing at the end of May. My best
friend is moving far away. The flight was cancelled, we missed the funeral. Someone broke into our home last night. He did
not survive the accident. The storm destroyed the whole harvest. We lost all our savings this year. The money is gone, all
of it. My mother is back in the hospital. They turned down my application again. The cat has been missing since Monday. I
was not chosen for the team. The company is bankrupt, we lost everything. Her illness has come back. The bridge collapsed
and people were hurt. We lost the match in the last minute. My bike was stolen from the yard. The school is closing for
good. Nobody came to his birthday party. The results are bad, worse than expected. I have to move out by Friday. Grandma
fell and broke her hip. The letter says we lost the case. Our old neighbor died in his sleep. They could not save the old
oak tree. My brother failed his exams and left school. The last bus is gone, we missed it.
"""),
        "held_out": _sentences("""
My neighbor lost his job on Friday. Our house was destroyed in the storm. The doctor says the illness has come back. Her
grandfather died in the hospital last night. The old factory is closing for good. I failed my driving test again. My car was
stolen last night. The wedding was cancelled this week. We lost the case and the money. My mother fell and broke her hip.
Our cat died early this morning. He was hurt in the accident.
"""),
    },
    "complaint": {
        "train": _sentences("""
You never listen when I talk to you. The neighbors are making noise all night again. I have been waiting for over an hour.
This soup is cold and has no taste. You always leave your dirty dishes here. Nobody ever helps me clean this kitchen. The
train is late every single day. They charged me twice for the same ticket. You forgot to call me again. This phone breaks
every other week. Why do I always have to pay? The room is dirty and smells of smoke. Nobody told me about the meeting
again. You keep using my things without asking. The service here gets worse every time. I am always the one who cleans up.
This chair hurts my back all day. Your music is far too loud at night. They never answer the phone in that office. You are
late for dinner once again. The heating is still not working here. He keeps interrupting me in every meeting. This line has
not moved for an hour. You promised to fix it weeks ago. My coffee is cold again, as always. They never clean the stairs in
this house. You spend all our money on games. The bus driver never waits for anyone. Why is it always so cold in here? You
ate my lunch without asking me. This new computer is far too slow. Nobody ever asks what I would like. You left the door
open all night again. The food here is bad and too expensive. She keeps talking through the whole movie. I asked you twice
to stop that noise.
"""),
        "held_out": _sentences("""
You never help me with the dishes. The food is cold and has no taste. I have been waiting here all day. The neighbors never
clean the stairs. You keep interrupting me all the time. This computer breaks every single week. Why are you always late for
dinner? You never listen to me in a meeting. Your music is too loud once again. They forgot my coffee once again. You
promised to clean the kitchen weeks ago. The service in that office is too slow.
"""),
    },
    "warning": {
        "train": _sentences("""
Be careful, the plate is very hot. Do not touch that wire, it is live. Watch your step, the floor is wet. Stay away from the
edge of the cliff. Do not go out there alone at night. Slow down, there is ice on the road. Lock the door before you go to
bed. Do not trust that man with your money. Look out, a car is coming. Keep your hands away from the dog. Careful, that
ladder is not safe. Do not drink the water from that well. You should leave before the storm comes. Watch out for the broken
glass there. Do not open the door to strangers. If you do that again, you will fall. Do not cross, the bridge is not safe.
Hold on tight, the road gets rough. Keep the children away from the fire. Do not eat those berries, they are poisonous. Take
care, there are thieves on this train. Stop, the ice is too thin to walk on. Do not swim here, the current is strong. Put on
your helmet before you ride. Do not drive home, you are too tired. Get down from there before you fall. Keep your voice
down, they can hear us. Check the brakes before you drive down. Do not sign anything before you read it. Be careful with
that knife, it is sharp. Stay inside until the storm is over. Cover your drink when you are out. Do not lean on that fence,
it is loose. Watch the step, it is broken there. You will get hurt if you stay here. Never leave the fire burning at night.
"""),
        "held_out": _sentences("""
Be careful, the road is wet there. Watch out, that dog is not safe. Do not touch the plate, it is hot. Stay away from the
fire, children. Do not walk on the ice alone. Slow down before you get hurt. Be careful, that glass is broken. Do not swim
there, it is not safe. Lock the door and stay inside tonight. Keep away from the edge, you will fall. Do not trust that man
tonight. Watch your hands, the knife is sharp.
"""),
    },
    "remark": {
        "train": _sentences("""
There is some bread left on the table. I think it is about four o'clock. The bus stops right across the street. My shoes are
by the front door. We usually eat dinner around seven. It looks like rain this afternoon. The post office is next to the
bank. I put the blue folder on the shelf. He takes the bus to work on Mondays. The library opens at nine tomorrow. There are
two chairs in the hallway. I walked along the river this morning. She wears glasses when she is reading. The kitchen window
faces the street. We painted the fence green last summer. The meeting is in the small room. I usually take my tea with milk.
The market is held on Tuesdays. That shop sells paper and pens. My uncle lives near the station. The leaves are turning
yellow now. I bought some apples on the way. The next train leaves at half past ten. They moved the table to the window. We
have the same kind of lamp. It is a bit cooler than yesterday. The keys are in the top drawer. I read the newspaper after
breakfast. The cat sleeps on the kitchen chair. There is a park behind the school. He was wearing a grey coat yesterday. The
bakery is around the corner. I think the wall was green before. The clock in the hallway is round. We took the stairs to the
third floor. She works in the office next door.
"""),
        "held_out": _sentences("""
The newspaper is on the kitchen table. I take the bus on Tuesdays. There are some apples on the shelf. The station is right
behind the park. The shop opens at nine on Mondays. My uncle takes his tea with milk. The blue chair is by the window. We
usually walk along the river. The small lamp is in the hallway. I think she works near the market. It is a bit cooler this
afternoon. The library is next to the school.
"""),
    },
}

# text act -> bearing -> the label that the act earns, and ways to say what it means
STANCES: dict[str, dict[Bearing, tuple[str, tuple[str, ...]]]] = {
    "praise": {
        ("open", True): ("grateful", ("the praise is an honest thank you", "the praise is sincerely meant")),
        ("open", False): ("shy", ("the praise is meant but hard to say", "saying something so kind takes courage")),
        ("hurting", True): ("proud", ("the praise honors someone through the pain", "the praise is said with a full heart")),
        ("hurting", False): ("hurt", ("the praise hides a wound", "praising someone else is painful")),
        ("hostile", True): ("amused", ("the praise is a playful tease", "the praise is half a joke")),
        ("hostile", False): ("sarcastic", ("the praise is not meant", "the praise means the opposite")),
    },
    "good_news": {
        ("open", True): ("excited", ("the good news cannot be held back", "the good news is pure joy")),
        ("open", False): ("relieved", ("the good news ends a long strain", "the good news takes a load off")),
        ("hurting", True): ("grateful", ("the good news comes as a comfort", "the good news is a gift in hard times")),
        ("hurting", False): ("disappointed", ("the good news comes too late", "the good news is less than was hoped")),
        ("hostile", True): ("proud", ("the good news is a triumph over others", "the good news is a boast")),
        ("hostile", False): ("sarcastic", ("the good news is mocked", "the good news is not welcome at all")),
    },
    "bad_news": {
        ("open", True): ("guarded", ("the pain of the loss is masked", "the loss is hidden behind a front")),
        ("open", False): ("hurt", ("the loss shows only in the voice", "the bad news strikes behind a composed face")),
        ("hurting", True): ("hopeful", ("the loss is told in a comforting way", "the bad news is not the end")),
        ("hurting", False): ("sad", ("the loss is felt in full", "the bad news is mourned openly")),
        ("hostile", True): ("contemptuous", ("the loss is put down to someone else", "the bad news is looked down on")),
        ("hostile", False): ("frustrated", ("the loss is felt to be unfair", "the bad news is one blow too many")),
    },
    "complaint": {
        ("open", True): ("amused", ("the complaint is only teasing", "the complaint is not serious")),
        ("open", False): ("guarded", ("the complaint is held back", "most of the complaint stays unsaid")),
        ("hurting", True): ("hopeful", ("the complaint asks for a change", "the complaint is a gentle plea")),
        ("hurting", False): ("hurt", ("the complaint comes from a wound", "the complaint is a cry of pain")),
        ("hostile", True): ("contemptuous", ("the complaint talks down to someone", "the complaint is a put-down")),
        ("hostile", False): ("frustrated", ("the complaint is fully meant", "the complaint was bottled up too long")),
    },
    "warning": {
        ("open", True): ("worried", ("the warning comes from care", "the warning is kindly meant")),
        ("open", False): ("tense", ("the warning is in dead earnest", "the warning leaves no room for error")),
        ("hurting", True): ("worried", ("the warning begs someone to take care", "the warning is a plea for care")),
        ("hurting", False): ("afraid", ("the danger is felt as real and near", "the warning is a cry of alarm")),
        ("hostile", True): ("amused", ("the warning is a playful threat", "the warning makes fun of the danger")),
        ("hostile", False): ("tense", ("the warning is a threat", "the warning barely hides a threat")),
    },
    "remark": {
        ("open", True): ("amused", ("the small talk is light and playful", "the plain remark carries a joke")),
        ("open", False): ("bored", ("the small talk only fills time", "the plain remark means very little")),
        ("hurting", True): ("guarded", ("the small talk covers something painful", "the plain remark avoids the real subject")),
        ("hurting", False): ("sad", ("the small talk does not lift the mood", "the plain remark cannot cover the pain")),
        ("hostile", True): ("sarcastic", ("the small talk is a dig at someone", "the plain remark has a sting")),
        ("hostile", False): ("bored", ("the small talk is a burden", "the plain remark is an unwilling one")),
    },
}

_ACTS = {
    "praise": (
        "The words praise someone",
        "The subtitle gives praise",
        "The words are full of praise",
        "The sentence is praise",
    ),
    "good_news": (
        "The words bring good news",
        "The subtitle is good news",
        "The words tell good news",
        "The sentence is good news",
    ),
    "bad_news": ("The words bring bad news", "The subtitle is bad news", "The words tell of a loss", "The sentence reports a loss"),
    "complaint": ("The words complain", "The subtitle is a complaint", "The words blame someone", "The sentence finds fault"),
    "warning": ("The words warn of a danger", "The subtitle is a warning", "The words are a warning", "The sentence warns someone"),
    "remark": (
        "The words are a plain remark",
        "The subtitle is small talk",
        "The words state a fact",
        "The sentence is small talk",
    ),
}
_GIVEN_THE_REST = ("given the face and the voice", "with such a face and voice", "taken with the rest", "said in this way")

# expression -> three signs, each with several ways to say it; a degree may stand at |
_SEEN = {
    "neutral": (
        ("the brows|rest", "the forehead|stays smooth", "the brows|hardly move"),
        ("the mouth|stays level", "the lips|rest together", "the mouth is|straight"),
        ("the eyes|look straight ahead", "the gaze is|even", "the eyes are|half at rest"),
    ),
    "smile": (
        ("the lip corners|rise", "the mouth|curves upward", "the corners of the mouth|lift"),
        ("the cheeks|rise", "the cheeks|push up", "the cheeks are|lifted"),
        ("the eyes|narrow warmly", "the lower lids|push up", "the eyes|crinkle"),
    ),
    "grief": (
        ("the inner brows|rise", "the brows|slant up in the middle", "the inner ends of the brows|lift"),
        ("the lip corners|sink", "the mouth|turns down", "the corners of the mouth|drop"),
        ("tears|appear", "the lowered eyes|fill with tears", "tears|run down"),
    ),
    "scowl": (
        ("the brows|lower", "the brows|draw down", "the brows are|pulled together"),
        ("the lips|press tight", "the lips are|pressed together", "the mouth is|pressed thin"),
        ("the lids|tighten", "the eyes|stare hard", "the look|hardens"),
    ),
    "fear": (
        ("the inner brows are|raised", "the brows|rise unevenly", "the brows|rise and draw together"),
        ("the lips|stretch sideways", "the mouth is|stretched wide", "the lips are|pulled back flat"),
        ("the upper lids|shoot up", "the eyes|show their whites", "the eyes are|wide"),
    ),
    "surprise": (
        ("both brows|arch high", "the brows|jump up", "the whole brows|rise in an arch"),
        ("the jaw|drops", "the mouth|falls open", "the mouth|opens round"),
        ("the eyes|grow round", "the eyes|widen", "the lids|open wide"),
    ),
    "disgust": (
        ("the nose|wrinkles", "the nose is|wrinkled up", "folds|form beside the nose"),
        ("the upper lip|curls", "the upper lip is|raised", "the upper lip|pulls up"),
        ("the squinting eyes|turn away", "the head|turns aside", "the narrowed gaze|turns away"),
    ),
    "smirk": (
        ("one lip corner|rises", "one side of the mouth|lifts", "the mouth|curls on one side"),
        ("one brow is|raised", "a single brow|lifts", "one brow|goes up"),
        ("the gaze|slides aside", "the drooping lids|look aside", "the eyes|glance sideways"),
    ),
}
_SEEN_OPENINGS = ("In the video, ", "On the face, ", "In the picture, ", "In the frames, ")
_COURSES = (
    "building up early and easing at the end",
    "growing at first and fading near the end",
    "soon at its peak, then slowly relaxing",
    "held through the middle of the clip",
    "which lasts for most of the clip",
)
_STILL_COURSES = (
    "from start to end",
    "all through the clip",
    "with hardly any change over time",
    "and nothing shifts",
)

# voice -> what it is like, and what it does
_HEARD = {
    "calm": (
        ("even", "steady", "smooth", "relaxed"),
        ("at an unhurried pace", "and the pitch moves gently", "with nothing forced in it"),
    ),
    "bright": (
        ("high", "lively", "quick", "ringing"),
        ("with wide swings of pitch", "and the melody leaps up and down", "rising far on every stress"),
    ),
    "dull": (
        ("flat", "slow", "dark", "dragging"),
        ("with almost no melody", "and stays on one low note", "like a single drawn line"),
    ),
    "harsh": (
        ("loud", "hard", "rough", "sharp"),
        ("with force on every word", "and has a grating edge", "and each word is hammered out"),
    ),
    "trembling": (
        ("shaky", "wavering", "unsteady", "thin"),
        ("and the pitch quivers all the time", "with a quiver in every long sound", "and keeps shaking up and down"),
    ),
    "breathy": (
        ("breathy", "soft", "airy", "hushed"),
        ("close to a whisper", "with much air and little tone", "and air runs through every word"),
    ),
    "hesitant": (
        ("halting", "broken", "stumbling", "interrupted"),
        ("with pauses between the words", "and it stops again and again", "and gaps open after a few words"),
    ),
}
_HEARD_OPENINGS = (
    "In the audio, the voice is",
    "The voice is",
    "The voice sounds",
    "The speech is",
    "The tone of the voice is",
    "The speech sounds",
)

_OPENERS = ("Therefore", "Taken together", "All in all", "Overall", "Thus", "In short")
_SUBJECTS = ("the person", "the speaker")
_VERBS = ("seems", "feels", "is")

_CLUE_POOLS = {
    "neutral": "rest smooth level straight even still",
    "smile": "smile corners rise cheeks upward crinkle warmly",
    "grief": "tears inner slant sink down lowered drop",
    "scowl": "lower pressed tight hard stare together lips",
    "fear": "stretched sideways whites wide back flat unevenly",
    "surprise": "arch high jaw open round widen jump",
    "disgust": "nose wrinkles curls upper squinting away folds",
    "smirk": "one side single aside drooping glance curls",
    "calm": "even steady smooth relaxed unhurried gently",
    "bright": "high lively quick ringing leaps swings",
    "dull": "flat slow dark dragging low note",
    "harsh": "loud hard rough sharp force grating",
    "trembling": "shaky wavering unsteady thin quivers shaking",
    "breathy": "breathy soft airy hushed whisper air",
    "hesitant": "halting broken stumbling interrupted pauses gaps",
}
_WEAK, _STRONG = 0.72, 0.88  # intensities below and above which a degree is named


def clue_pool(part: str, intensity: float) -> list[str]:
    """Words that any four of fix an expression or a voice, and, where it is weak or strong, its degree."""
    degree = _degree(intensity, "very" if part in _HEARD else "strongly")
    return [*_CLUE_POOLS[part].split(), *([degree] if degree and part != "neutral" else [])]


def _degree(intensity: float, strong: str) -> str:
    if intensity < _WEAK:
        return "slightly"
    return strong if intensity > _STRONG else ""


def describe(
    *,
    expression: str,
    intensity: float,
    voice: str,
    voice_intensity: float,
    text_act: str,
    bearing: Bearing,
    labels: list[str],
    rng: np.random.Generator,
) -> tuple[dict[str, str], str]:
    """Say in four sentences what is seen, heard and meant, and what follows.

    Returns:
        `dict[str, str]`, `str`: the sentences about "video", "audio" and "text" in this order, and the conclusion with `labels`.
    """
    clues = {
        "video": _seen(expression, intensity, rng),
        "audio": _heard(voice, voice_intensity, rng),
        "text": f"{_pick(_ACTS[text_act], rng)}; {_pick(_GIVEN_THE_REST, rng)}, {_pick(STANCES[text_act][bearing][1], rng)}.",
    }
    conclusion = f"{_pick(_OPENERS, rng)}, {_pick(_SUBJECTS, rng)} {_pick(_VERBS, rng)} {', '.join(labels[:-1])} and {labels[-1]}."
    return clues, conclusion


def _seen(expression: str, intensity: float, rng: np.random.Generator) -> str:
    signs = [_pick(ways, rng).split("|") for ways in _SEEN[expression]]
    degree = _degree(intensity, "strongly")
    if degree and expression != "neutral":
        signs[0].insert(1, degree)
    first, second, third = (" ".join(sign) for sign in signs)
    course = _pick(_STILL_COURSES if expression == "neutral" else _COURSES, rng)
    return f"{_pick(_SEEN_OPENINGS, rng)}{first}, {second} and {third}, {course}."


def _heard(voice: str, intensity: float, rng: np.random.Generator) -> str:
    qualities, doings = _HEARD[voice]
    first, second = (qualities[place] for place in rng.permutation(len(qualities))[:2])
    degree = _degree(intensity, "very")
    return f"{_pick(_HEARD_OPENINGS, rng)} {degree + ' ' if degree else ''}{first} and {second}, {_pick(doings, rng)}."


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[rng.integers(len(choices))]
