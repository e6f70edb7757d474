//! `legionctl model check`.

use std::{
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use legion_server::{
    input::{Input, mlflow},
    model::Model,
};

use super::{environment, place, predict, serve::Running};
use crate::{
    args::{Global, ModelPlace},
    exit::{Code, Result},
    gppi, output,
};

/// Limits on the process that loads a model.
pub(super) struct LoadLimits {
    /// Bytes.
    pub(super) memory: Option<u64>,
    /// Time for loading, and for the prediction.
    pub(super) timeout: Duration,
}

/// Checks the files of a model. With limits, it loads the model, too, and predicts its sample.
pub(super) async fn run(
    global: &Global,
    model: &ModelPlace,
    load: Option<LoadLimits>,
    out: &mut dyn Write,
) -> Result<Code> {
    let place = place::find(global, &model.model).await?;
    let (format, mut problems) = problems(&place.directory);
    if let (Some(limits), true) = (load, problems.is_empty()) {
        match self::load(model, &place.directory, &limits).await? {
            Ok(done) => output::line(out, format_args!("{done}"))?,
            Err(problem) => problems.push(problem),
        }
    }
    for problem in &problems {
        output::line(out, format_args!("{problem}"))?;
    }
    let verdict = match problems.len() {
        0 => format!("is {format}"),
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    };
    output::line(out, format_args!("{}: {verdict}", model.model))?;
    Ok(if problems.is_empty() { Code::Ok } else { Code::Failed })
}

/// Returns the format of a directory, and every problem.
fn problems(directory: &Path) -> (&'static str, Vec<String>) {
    let is_mlflow = !directory.join(gppi::DESCRIPTOR).is_file() && directory.join("MLmodel").is_file();
    let (format, mut problems) = if is_mlflow {
        ("an MLflow model", Vec::new())
    } else {
        ("GPPI v1", gppi::validate(directory))
    };
    if problems.is_empty()
        && let Err(error) = Model::read(directory)
    {
        problems.push(error.to_string());
    }
    (format, problems)
}

/// Loads a model and predicts its sample. Returns what was done, or what is wrong.
async fn load(
    model: &ModelPlace,
    directory: &Path,
    limits: &LoadLimits,
) -> Result<std::result::Result<String, String>> {
    let (python, _in_use) = environment::python(model, directory).await?;
    let options = predict::options(limits.memory, limits.timeout)?;
    let began = Instant::now();
    let running = Running::start(directory, &python, &options).await?;
    let result = async {
        running
            .front
            .pool
            .loaded()
            .await
            .map_err(|why| format!("load: {why}"))?;
        let loaded = began.elapsed().as_secs_f64();
        let sample = &running.front.model.sample;
        if sample.file.is_none() {
            return Ok(format!("loaded in {loaded:.1} s; it has no sample to predict"));
        }
        let sample = sample.request.get().as_bytes().to_vec().into();
        let signature = running.front.model.signature.as_ref();
        let input: Input = mlflow::decode(&sample, signature).map_err(|invalid| format!("sample: {invalid}"))?;
        let prediction = running.front.pool.predict(input).await;
        let prediction = prediction.map_err(|failure| format!("sample: {failure}"))?;
        let took = prediction.predicted.as_secs_f64() * 1e3;
        Ok(format!("loaded in {loaded:.1} s, predicted its sample in {took:.1} ms"))
    }
    .await;
    running.stop().await;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_problem_is_printed_and_the_code_says_whether_there_is_one() {
        let root = tempfile::tempdir().unwrap();
        let model = ModelPlace {
            model: root.path().display().to_string(),
            python: None,
        };
        let check = async || {
            let mut out = Vec::new();
            let code = run(&Global::default(), &model, None, &mut out).await.unwrap();
            (code, String::from_utf8(out).unwrap())
        };
        let (code, text) = check().await;
        assert_eq!(code, Code::Failed);
        assert!(text.starts_with("legion.model.yaml: there is no such file"), "{text}");
        assert!(text.ends_with(": 1 problem\n"), "{text}");
        std::fs::write(root.path().join("MLmodel"), "flavors: {python_function: {}}").unwrap();
        let (code, text) = check().await;
        assert_eq!(code, Code::Ok);
        assert!(text.ends_with(": is an MLflow model\n"), "{text}");
        std::fs::write(root.path().join("MLmodel"), "flavors: {onnx: {}}").unwrap();
        let (code, text) = check().await;
        assert_eq!(code, Code::Failed);
        assert!(text.contains("flavors: has no python_function, only onnx"), "{text}");
    }
}
