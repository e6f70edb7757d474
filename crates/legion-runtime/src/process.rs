//! Resource use of the process, under the metric names of all Prometheus client libraries.
//!
//! Values are read from `/proc` at each scrape. Without `/proc` there are no such metrics.

use std::fs;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Collector of the resource use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessCollector;

/// Fields of `/proc/self/stat`, in the units of that file. See proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program is in parentheses and may contain any character.
        let (_, after_name) = text.rsplit_once(") ")?;
        // The first of these is field 3 of the file.
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: number(14)? + number(15)?,
            threads: number(20)?,
            start_ticks: number(22)?,
            virtual_bytes: number(23)?,
            resident_pages: number(24)?,
        })
    }
}

/// Returns the boot time of the machine, in seconds since 1970.
fn boot_time() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

#[allow(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            let metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)
        };
        let stat = fs::read_to_string("/proc/self/stat")
            .ok()
            .and_then(|text| Stat::parse(&text));
        if let Some(stat) = &stat {
            let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
            #[allow(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
            {
                gauge(
                    "process_resident_memory",
                    "Resident memory.",
                    Some(&Unit::Bytes),
                    (stat.resident_pages * page) as f64,
                )?;
                gauge(
                    "process_virtual_memory",
                    "Virtual memory.",
                    Some(&Unit::Bytes),
                    stat.virtual_bytes as f64,
                )?;
                gauge(
                    "process_threads",
                    "Threads of the operating system.",
                    None,
                    stat.threads as f64,
                )?;
                if let Some(boot_time) = boot_time() {
                    gauge(
                        "process_start_time",
                        "When the process was started, in seconds since 1970.",
                        Some(&Unit::Seconds),
                        boot_time as f64 + seconds(stat.start_ticks),
                    )?;
                }
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the open directory itself.
            let open = u32::try_from(open.count().saturating_sub(1)).unwrap_or(u32::MAX);
            gauge("process_open_fds", "Open file descriptors.", None, f64::from(open))?;
        }
        if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            #[allow(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
            gauge(
                "process_max_fds",
                "How many file descriptors may be open.",
                None,
                limit as f64,
            )?;
        }
        if let Some(stat) = &stat {
            let metric = encoder.encode_descriptor(
                "process_cpu",
                "Processor time, in user and system mode.",
                Some(&Unit::Seconds),
                MetricType::Counter,
            )?;
            ConstCounter::new(seconds(stat.cpu_ticks)).encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_may_contain_parentheses() {
        let text = "4711 (a) b) (c) S 1 4711 4711 0 -1 4194560 9 0 0 0 150 25 0 0 20 0 7 0 9000 11501568 830 \
                    18446744073709551615 1 1 0 0 0 0 0 0 0";
        assert_eq!(
            Stat::parse(text),
            Some(Stat {
                cpu_ticks: 175,
                threads: 7,
                start_ticks: 9000,
                virtual_bytes: 11_501_568,
                resident_pages: 830,
            })
        );
        assert_eq!(Stat::parse("4711 (short) S 1"), None);
    }
}
