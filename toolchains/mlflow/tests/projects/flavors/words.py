"""A text classifier of spaCy, from a blank pipeline: it needs no download."""

import mlflow
import spacy
from spacy.training import Example
from spacy.util import fix_random_seed

fix_random_seed(1)
language = spacy.blank("en")
language.add_pipe("textcat").add_label("GOOD")
language.get_pipe("textcat").add_label("BAD")
texts = {"a fine day": 1.0, "a bad day": 0.0}
examples = [
    Example.from_dict(language.make_doc(text), {"cats": {"GOOD": good, "BAD": 1 - good}})
    for text, good in texts.items()
]
with mlflow.start_run():
    trainer = language.initialize(lambda: examples)
    for step in range(3):
        losses = language.update(examples, sgd=trainer)
        mlflow.log_metric("loss", round(losses["textcat"], 3), step=step)
    mlflow.spacy.log_model(language, "model", pip_requirements=["spacy"])
