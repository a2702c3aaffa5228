//! An axis of a chart: its range, positions of values, ticks and tick labels.

/// Largest number of ticks of an axis.
const MAX_TICKS: usize = 8;
/// Margin beyond the data on each side, as a share of its range.
const MARGIN: f64 = 0.05;

/// Shortest range of an axis: a shorter one would have ticks at steps that a number cannot express.
const LEAST_RANGE: f64 = 1e-300;

/// The scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Linear.
    Linear,
    /// Logarithmic; values that are not positive are not shown.
    Log,
}

impl Scale {
    /// Whether a value can be shown. Values beyond the range of f32 are not shown: they come from a diverged
    /// computation, and the range of the axis would overflow.
    pub(super) fn shows(self, value: f64) -> bool {
        let is_in_f32_range = value.abs() <= f64::from(f32::MAX);
        match self {
            Scale::Linear => is_in_f32_range,
            Scale::Log => is_in_f32_range && value > LEAST_RANGE,
        }
    }

    /// The coordinate of a value, which is linear along the axis.
    fn distance(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.log10(),
        }
    }
}

/// A tick: its position along the axis, 0 to 1, and its label.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) position: f64,
    pub(super) label: String,
}

/// An axis; `low` and `high` are the coordinates of its ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    /// An axis with exactly the range of the values; `None` if it can show none of them.
    pub(super) fn tight(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Axis> {
        let shown = values.filter(|&value| scale.shows(value)).map(|value| scale.distance(value));
        let (low, high) = shown
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), distance| (low.min(distance), high.max(distance)));
        if low > high {
            return None;
        }
        if high - low > (1e-9 * high.abs().max(low.abs())).max(LEAST_RANGE) {
            return Some(Axis { scale, low, high });
        }
        // a single value is shown in the middle of a range around it
        let around = match scale {
            Scale::Linear if low.abs() <= LEAST_RANGE => 1.0,
            Scale::Linear => low.abs() / 2.0,
            Scale::Log => 0.5,
        };
        Some(Axis { scale, low: low - around, high: high + around })
    }

    /// An axis with a margin on both sides; it does not go below 0 if no value does.
    pub(super) fn with_margin(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Axis> {
        let Axis { low, high, .. } = Axis::tight(scale, values)?;
        let margin = (high - low) * MARGIN;
        let low_with_margin = match scale {
            Scale::Linear if low >= 0.0 => (low - margin).max(0.0),
            Scale::Linear | Scale::Log => low - margin,
        };
        Some(Axis { scale, low: low_with_margin, high: high + margin })
    }

    /// Position of a value along the axis: 0 at the low end, 1 at the high end.
    pub(super) fn position(&self, value: f64) -> f64 {
        (self.scale.distance(value) - self.low) / (self.high - self.low)
    }

    /// At least two ticks, in increasing order, at round values.
    pub(super) fn ticks(&self) -> Vec<Tick> {
        match self.scale {
            Scale::Linear => self.round_ticks(self.low, self.high),
            Scale::Log => self.log_ticks(),
        }
    }

    /// Multiples of 1, 2 or 5 times a power of ten between two values.
    fn round_ticks(&self, low: f64, high: f64) -> Vec<Tick> {
        let step = round_step((high - low) / (MAX_TICKS - 1) as f64);
        // tolerance for rounding, so that a tick at the end of the range is kept
        let slack = step * 1e-6;
        let first = ((low - slack) / step).ceil() as i64;
        let last = ((high + slack) / step).floor() as i64;
        let largest = low.abs().max(high.abs());
        let tick = |index: i64| {
            let value = index as f64 * step;
            let label = label_of_step(value, step, largest);
            Tick { position: self.position(value).clamp(0.0, 1.0), label }
        };
        (first..=last).map(tick).collect()
    }

    /// Powers of ten; on a shorter axis also 2 and 5 times them; on a very short one linear ticks.
    fn log_ticks(&self) -> Vec<Tick> {
        let decades = |mantissas: &[i32], stride: i32| -> Vec<Tick> {
            let (first, last) = (self.low.floor() as i32, self.high.ceil() as i32);
            (first..=last)
                .filter(|exponent| exponent.rem_euclid(stride) == 0)
                .flat_map(|exponent| mantissas.iter().map(move |&mantissa| (mantissa, exponent)))
                .map(|(mantissa, exponent)| Tick {
                    position: self.position(f64::from(mantissa) * 10_f64.powi(exponent)),
                    label: label_of_decade(mantissa, exponent),
                })
                .filter(|tick| (-1e-9..=1.0 + 1e-9).contains(&tick.position))
                .collect()
        };
        let stride = (1..).find(|&stride| decades(&[1], stride).len() <= MAX_TICKS);
        for (mantissas, stride) in [(&[1][..], stride.unwrap_or(1)), (&[1, 2, 5], 1)] {
            let ticks = decades(mantissas, stride);
            if ticks.len() >= 3 {
                return ticks;
            }
        }
        self.round_ticks(10_f64.powf(self.low), 10_f64.powf(self.high))
    }
}

/// A value with four significant digits, without trailing zeros.
pub(super) fn plain(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-4..1e6).contains(&value.abs()) {
        return scientific(value, 2);
    }
    let fixed = with_decimals(value, (3 - exponent(value)).max(0) as usize);
    without_trailing_zeros(&fixed).to_owned()
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let factors = [1.0, 2.0, 5.0];
    let factor = factors.into_iter().find(|factor| factor * power >= least * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// The label of a multiple of `step`, in the same format for all ticks of an axis with values up to `largest`.
fn label_of_step(value: f64, step: f64, largest: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let step_exponent = exponent(step * (1.0 + 1e-9));
    if !(1e-3..1e9).contains(&largest) {
        return scientific(value, (exponent(value) - step_exponent).max(0) as usize);
    }
    let (unit_exponent, suffix) = match largest {
        1e6.. if step >= 1e4 => (6, "M"),
        1e4.. if step >= 1e2 => (3, "k"),
        _ => (0, ""),
    };
    let decimals = (unit_exponent - step_exponent).max(0) as usize;
    with_decimals(value / 10_f64.powi(unit_exponent), decimals) + suffix
}

/// The label of `mantissa` times a power of ten.
fn label_of_decade(mantissa: i32, exponent: i32) -> String {
    let value = f64::from(mantissa) * 10_f64.powi(exponent);
    match exponent {
        -3..=3 => with_decimals(value, (-exponent).max(0) as usize),
        4 | 5 => with_decimals(value / 1e3, 0) + "k",
        _ => scientific(value, 0),
    }
}

/// The decimal exponent of a value.
fn exponent(value: f64) -> i32 {
    value.abs().log10().floor() as i32
}

/// Scientific notation such as `2×10⁻⁵`, without trailing zeros.
fn scientific(value: f64, decimals: usize) -> String {
    // formatted with `e` first, which rounds 9.999 to 1.00e1 rather than 10.00
    let standard = format!("{value:.decimals$e}");
    let (mantissa, exponent) = standard.split_once('e').expect("the standard form has an exponent");
    let mantissa = without_trailing_zeros(mantissa).replace('-', "−");
    let exponent: String = exponent.chars().map(superscript).collect();
    match mantissa.as_str() {
        "1" => format!("10{exponent}"),
        "−1" => format!("−10{exponent}"),
        _ => format!("{mantissa}×10{exponent}"),
    }
}

fn superscript(character: char) -> char {
    match character {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => char::from_u32('⁰' as u32 + digit as u32 - '0' as u32).unwrap_or(digit),
    }
}

fn without_trailing_zeros(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

/// A fixed number of decimals, with a typographic minus sign.
fn with_decimals(value: f64, decimals: usize) -> String {
    format!("{value:.decimals$}").replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale, low: f64, high: f64) -> String {
        let axis = Axis::tight(scale, [low, high].into_iter()).unwrap();
        let labels: Vec<String> = axis.ticks().into_iter().map(|tick| tick.label).collect();
        labels.join(" ")
    }

    #[test]
    fn ticks_are_at_round_values_within_the_data() {
        let check = |scale: Scale, low: f64, high: f64, expected: &str| {
            assert_eq!(labels(scale, low, high), expected, "{scale:?} {low}..{high}");
        };
        check(Scale::Linear, 0.0, 100.0, "0 20 40 60 80 100");
        check(Scale::Linear, 0.031, 0.087, "0.04 0.05 0.06 0.07 0.08");
        check(Scale::Linear, 0.0, 0.3, "0 0.05 0.10 0.15 0.20 0.25 0.30");
        check(Scale::Linear, -1.0, 1.0, "−1.0 −0.5 0 0.5 1.0");
        check(Scale::Linear, 0.0, 9_000.0, "0 2000 4000 6000 8000");
        check(Scale::Linear, 0.0, 125_000.0, "0 20k 40k 60k 80k 100k 120k");
        check(Scale::Linear, 0.0, 12_000.0, "0 2k 4k 6k 8k 10k 12k");
        check(Scale::Linear, 0.0, 2.4e6, "0 0.5M 1.0M 1.5M 2.0M");
        check(Scale::Linear, 62_490.0, 62_500.0, "62490 62492 62494 62496 62498 62500");
        check(Scale::Linear, 1.7e-5, 1.705e-5, "1.7×10⁻⁵ 1.701×10⁻⁵ 1.702×10⁻⁵ 1.703×10⁻⁵ 1.704×10⁻⁵ 1.705×10⁻⁵");
        check(Scale::Linear, 0.0, 8e-4, "0 2×10⁻⁴ 4×10⁻⁴ 6×10⁻⁴ 8×10⁻⁴");
        check(Scale::Log, 1e-6, 1e-2, "10⁻⁶ 10⁻⁵ 10⁻⁴ 0.001 0.01");
        check(Scale::Log, 0.03, 0.9, "0.05 0.1 0.2 0.5");
        check(Scale::Log, 0.31, 0.38, "0.31 0.32 0.33 0.34 0.35 0.36 0.37 0.38");
        check(Scale::Log, 1e-12, 1.0, "10⁻¹² 10⁻¹⁰ 10⁻⁸ 10⁻⁶ 10⁻⁴ 0.01 1");
        check(Scale::Log, 1.0, 1e5, "1 10 100 1000 10k 100k");
    }

    #[test]
    fn any_range_gets_some_ticks_and_not_too_many() {
        let check = |scale: Scale, low: f64, high: f64| {
            let ticks = Axis::with_margin(scale, [low, high].into_iter()).unwrap().ticks();
            assert!((2..=MAX_TICKS + 1).contains(&ticks.len()), "{scale:?} {low}..{high}: {ticks:?}");
            assert!(ticks.windows(2).all(|pair| pair[0].position < pair[1].position), "{ticks:?}");
            assert!(ticks.windows(2).all(|pair| pair[0].label != pair[1].label), "{ticks:?}");
        };
        for exponent in -12..12 {
            for span in [1.01, 1.3, 2.0, 7.7, 35.0, 1e3, 1e8] {
                let low = 1.7 * 10_f64.powi(exponent);
                check(Scale::Linear, low, low * span);
                check(Scale::Log, low, low * span);
            }
        }
    }

    #[test]
    fn positions_follow_the_scale() {
        let check = |scale: Scale, value: f64, expected: f64| {
            let position = Axis::tight(scale, [1.0, 100.0].into_iter()).unwrap().position(value);
            assert!((position - expected).abs() < 1e-12, "{scale:?} {value}: {position}");
        };
        check(Scale::Linear, 1.0, 0.0);
        check(Scale::Linear, 50.5, 0.5);
        check(Scale::Linear, 100.0, 1.0);
        check(Scale::Log, 1.0, 0.0);
        check(Scale::Log, 10.0, 0.5);
        check(Scale::Log, 100.0, 1.0);
    }

    #[test]
    fn only_values_the_scale_shows_make_the_range() {
        let check = |scale: Scale, values: &[f64], expected: Option<(f64, f64)>| {
            let axis = Axis::tight(scale, values.iter().copied());
            assert_eq!(axis.map(|axis| (axis.low, axis.high)), expected, "{scale:?} {values:?}");
        };
        check(Scale::Linear, &[], None);
        check(Scale::Linear, &[f64::NAN, f64::INFINITY, 1e300, -1e300], None);
        check(Scale::Linear, &[f64::NAN, -2.0, 3.0], Some((-2.0, 3.0)));
        check(Scale::Linear, &[4.0], Some((2.0, 6.0)));
        check(Scale::Linear, &[0.0], Some((-1.0, 1.0)));
        check(Scale::Linear, &[0.0, 5e-324], Some((-1.0, 1.0)));
        check(Scale::Log, &[0.0, -1.0, 5e-324], None);
        check(Scale::Log, &[0.0, 1.0, 100.0], Some((0.0, 2.0)));
    }

    #[test]
    fn plain_numbers_are_short() {
        let check = |value: f64, expected: &str| assert_eq!(plain(value), expected);
        check(0.0, "0");
        check(0.034_567, "0.03457");
        check(12.0, "12");
        check(-1.5, "−1.5");
        check(123_456.0, "123456");
        check(1.25e-5, "1.25×10⁻⁵");
        check(1e9, "10⁹");
    }
}
