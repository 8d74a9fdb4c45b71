"""A page of clips with their truth, to look at in a browser: one file, which holds the clips and loads nothing."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from .scenarios import Scene, row_of

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1180px; padding: 0 1rem;
  color: #222; background: #fafafa }
article { display: grid; grid-template-columns: 224px 1fr; gap: 1.2rem; background: #fff; border: 1px solid #ddd;
  border-radius: 10px; padding: 1rem; margin: 1rem 0 }
video { width: 224px; height: 224px; border-radius: 6px; background: #eee }
h2 { font-size: 1.05rem; margin: 0 0 .3rem } p { margin: .3rem 0 }
.labels span { background: #e6eefc; border-radius: 9px; padding: .05rem .6rem; margin-right: .35rem }
.facts { color: #666; font-size: .85rem } q { font-style: italic }
@media (max-width: 620px) { article { grid-template-columns: 1fr } }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } article { background: #222; border-color: #444 }
  .labels span { background: #2b3c5c } .facts { color: #999 } }
"""


def write_page(path: Path, clips: Sequence[tuple[Scene, Path]], title: str) -> None:
    """Write clips and what is true of them as one HTML file.

    Args:
        path (`Path`): the file; about 1.4 times as large as the clips.
        clips (`Sequence[tuple[Scene, Path]]`): scenes and the mp4 files that show them, in order.
        title (`str`): of the page.
    """
    articles = "\n".join(_article(scene, clip) for scene, clip in clips)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p>Drawn faces with synthetic voices, and the truth about each. Never evidence about people.</p>
{articles}
</body></html>
"""
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)


def _article(scene: Scene, clip: Path) -> str:
    row = row_of(scene)
    data = base64.b64encode(clip.read_bytes()).decode()
    labels = "".join(f"<span>{html.escape(label)}</span>" for label in row["labels"])
    face = scene.course.replace("_", " ").replace(">", " → ")
    facts = (
        f"{scene.name}: face {scene.level}, {scene.timing}; voice {scene.voice_level}; {scene.text_act.replace('_', ' ')}; "
        f"spoken in {'English' if scene.spoken == 'en' else 'Mandarin'} by {scene.speaker.variant}"
    )
    return f"""<article>
<video controls loop preload="metadata" src="data:video/mp4;base64,{data}"></video>
<div>
<h2>{html.escape(face)}, {html.escape(scene.voice)} voice</h2>
<p><q>{html.escape(row["subtitle"])}</q> <q lang="zh">{html.escape(row["subtitle_zh"])}</q></p>
<p class="labels">{labels}</p>
<p>{html.escape(row["description"])}</p>
<p lang="zh">{html.escape(row["description_zh"])}</p>
<p class="facts">{html.escape(facts)}</p>
</div>
</article>"""
