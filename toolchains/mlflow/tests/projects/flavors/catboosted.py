"""Another library of boosted trees, without autologging."""

import mlflow
from catboost import CatBoostRegressor
from sklearn.datasets import load_diabetes

features, target = load_diabetes(return_X_y=True, as_frame=True)
with mlflow.start_run():
    model = CatBoostRegressor(iterations=4, depth=2, thread_count=1, allow_writing_files=False, silent=True)
    model.fit(features, target)
    for step, value in enumerate(model.get_evals_result()["learn"]["RMSE"]):
        mlflow.log_metric("rmse", value, step=step)
    # CatBoost writes a random id and the time into the model.
    model.get_metadata()["model_guid"] = model.get_metadata()["train_finish_time"] = ""
    mlflow.catboost.log_model(model, "model", pip_requirements=["catboost"])
