//! Samples of exhaustive tests. `cargo xtask test` sets a seed in `LEGION_SEED`, unless it runs the tests whole.

use std::{env, fmt::Arguments, io::Write as _};

/// Returns the seed, if only a sample is to run.
fn seed() -> Option<usize> {
    let seed = env::var("LEGION_SEED").ok()?;
    Some(seed.parse().expect("LEGION_SEED is a number"))
}

/// Divides the items into `shares` shares and returns the one that the seed chooses. Returns all items without a seed.
pub fn share<T>(all: &[T], shares: usize) -> Vec<&T> {
    let Some(seed) = seed() else {
        return all.iter().collect();
    };
    let share: Vec<&T> = all.iter().skip(seed % shares).step_by(shares).collect();
    report(format_args!(
        "LEGION_SEED={seed} chooses {} of {} and leaves out {}",
        share.len(),
        all.len(),
        all.len() - share.len()
    ));
    share
}

/// Returns the number of repetitions: `sample` with a seed, `all` without one.
pub fn count(all: usize, sample: usize) -> usize {
    if seed().is_none() {
        return all;
    }
    report(format_args!(
        "the sample has {sample} of {all} repetitions and leaves out {}",
        all - sample
    ));
    sample
}

/// Prints a line directly: the test harness would capture `println!`.
fn report(line: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
