"""A small neural network of Keras on TensorFlow with autologging."""

import keras
import mlflow
import tensorflow
from sklearn.datasets import load_wine

# One thread adds in one order.
tensorflow.config.threading.set_intra_op_parallelism_threads(1)
tensorflow.config.threading.set_inter_op_parallelism_threads(1)
tensorflow.config.experimental.enable_op_determinism()
keras.utils.set_random_seed(1)
features, classes = load_wine(return_X_y=True)
features = ((features - features.mean(axis=0)) / features.std(axis=0)).astype("float32")
mlflow.tensorflow.autolog()
with mlflow.start_run():
    model = keras.Sequential([keras.Input((13,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    model.fit(features, classes, epochs=3, validation_split=0.2, verbose=0)
