//! Kubernetes quantities, as far as sizes of volumes need them.

/// The bytes that `text` means (`20Gi`, `5G`, `1e9`, `1073741824`), rounded up; `None` when it is no quantity.
pub(crate) fn bytes(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || number.len() > 24 {
        return None;
    }
    let (multiply, divide): (u128, u128) = match suffix {
        "" => (1, 1),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1000_u128.pow(2), 1),
        "G" => (1000_u128.pow(3), 1),
        "T" => (1000_u128.pow(4), 1),
        "P" => (1000_u128.pow(5), 1),
        "E" => (1000_u128.pow(6), 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        other => {
            let exponent: u32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            (10_u128.checked_pow(exponent).filter(|_| exponent <= 18)?, 1)
        }
    };
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(divide)?;
    Some(digits.checked_mul(multiply)?.div_ceil(scale))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_read_as_kubernetes_reads_them() {
        for (text, want) in [
            ("1073741824", 1 << 30),
            ("1Gi", 1 << 30),
            ("1.5Gi", 3 << 29),
            ("20G", 20_000_000_000),
            ("1e3", 1000),
            ("1500m", 2),
            ("0.5Ki", 512),
        ] {
            assert_eq!(bytes(text), Some(want), "{text}");
        }
        for text in ["", "Gi", "x", "1Qi", "-1", "1e", "1e99", ".", "1.2.3"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
