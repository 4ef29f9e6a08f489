//! How a figure is told.

use serde_json::{Value, json};
use std::fs;

/// Prints figures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    pub(crate) json: bool,
}

/// The middle one; of an even number the lower.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Three digits that count.
fn short(value: f64) -> Value {
    if !value.is_finite() {
        return Value::Null;
    }
    let digits = if value.abs() >= 100.0 { 1.0 } else { 1000.0 };
    json!((value * digits).round() / digits)
}

/// The load of the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|l| l.parse().ok()).unwrap_or(f64::NAN)
}

impl Printer {
    /// One figure; `peers`: the others' medians of the same.
    pub(crate) fn print(self, name: &str, values: &[f64], peers: &[(&str, Option<f64>)]) {
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let p50 = median(values);
        if self.json {
            let mut line = json!({
                "figure": format!("archive.{name}"), "p50": short(p50), "min": short(min), "max": short(max),
                "runs": values.len(), "load": load(),
            });
            if !peers.is_empty() {
                let peers: serde_json::Map<_, _> =
                    peers.iter().map(|(n, v)| ((*n).to_owned(), v.map_or(Value::Null, short))).collect();
                line["peer"] = peers.into();
            }
            println!("{line}");
        } else {
            let peers: Vec<String> = peers
                .iter()
                .map(|(n, v)| v.map_or_else(|| format!("{n} -"), |v| format!("{n} {}", short(v))))
                .collect();
            println!(
                "archive.{name:<36} p50 {:<8} min {:<8} max {:<8} runs {} load {:<6} {}",
                short(p50),
                short(min),
                short(max),
                values.len(),
                load(),
                peers.join(" ")
            );
        }
    }
}
