//! Values at, below and above the ends of a range, and of other types, and whether they fit.

use super::table::{Bound, Numbers, Range};
use toml::Value;
use toml::Value::{Array, Boolean, Float, Integer};

/// Relative distance of a number just outside a range from its end; f32 tells the two apart.
const STEP_ASIDE: f64 = 1e-6;

/// Values for a key with this range, and whether they fit. `value_of` is what a bound stands for.
pub(crate) fn values(range: &Range, value_of: &dyn Fn(&str) -> f64) -> Vec<(Value, bool)> {
    let text = |text: &str| Value::String(text.to_owned());
    let no = |values: Vec<Value>| values.into_iter().map(|value| (value, false)).collect::<Vec<_>>();
    match range {
        Range::Name => no(vec![text("zzzzzzzz"), Integer(1), Float(1.5), Boolean(true), Array(vec![Integer(1)])]),
        Range::Text => no(vec![Integer(1), Float(1.5), Boolean(true), Array(vec![text("a")])]),
        Range::TrueOrFalse => no(vec![text("true"), Integer(1), Float(1.0), Array(vec![Boolean(true)])]),
        Range::One(of) => {
            let fitting = fitting(of, value_of);
            let lists = [Array(Vec::new()), Array(vec![fitting.clone()]), Array(vec![fitting.clone(), fitting])];
            [numbers(of, value_of), no(lists.to_vec())].concat()
        }
        Range::OneOrTwo(of) => [numbers(of, value_of), pairs(of, value_of)].concat(),
        Range::Two(of) => [pairs(of, value_of), no(vec![fitting(of, value_of)])].concat(),
        Range::List(of) => {
            let lists = numbers(of, value_of).into_iter().map(|(value, fits)| (Array(vec![value]), fits));
            lists.chain([(fitting(of, value_of), false), (text("[1]"), false)]).collect()
        }
        Range::InOrder(of) => {
            let (fits, more) = (fitting(of, value_of), greater(of, value_of));
            let swapped = (Array(vec![more.clone(), fits.clone()]), false);
            let ends = numbers(of, value_of).into_iter().flat_map(|(value, value_fits)| {
                let is_low = value.as_float().is_some_and(|value| value <= fits.as_float().unwrap());
                let pair = if is_low { vec![value, fits.clone()] } else { vec![fits.clone(), value] };
                [(Array(pair.clone()), value_fits), (Array(vec![pair[0].clone(); 3]), false)]
            });
            ends.chain([swapped, (fits.clone(), false), (Array(vec![fits.clone(), more]), true)]).collect()
        }
        Range::CenterAndWidth => {
            let list = |numbers: &[f64]| Array(numbers.iter().copied().map(Float).collect());
            let fitting = [[-600.5, 1500.0], [0.0, 1e-9], [1e9, 1e9]].map(|pair| (list(&pair), true));
            let wrong: [&[f64]; 8] = [
                &[40.0, 0.0],
                &[40.0, -1.0],
                &[f64::NAN, 1.0],
                &[0.0, f64::INFINITY],
                &[0.0, f64::NAN],
                &[],
                &[1.0],
                &[1.0; 3],
            ];
            [fitting.to_vec(), no(wrong.map(list).to_vec()), no(vec![Float(1.0), text("a")])].concat()
        }
        Range::Ascending(of) => {
            let (fits, more) = (fitting(of, value_of), greater(of, value_of));
            let lists = numbers(of, value_of).into_iter().map(|(value, fits)| (Array(vec![value]), fits));
            let swapped = Array(vec![more.clone(), fits.clone()]);
            let equal = Array(vec![fits.clone(), fits.clone()]);
            let more = [(Array(vec![fits.clone(), more]), true), (swapped, false), (equal, false), (fits, false)];
            lists.chain(more).collect()
        }
    }
}

/// Two of the same number, for each number; and lists that are too short, too long, or half wrong.
fn pairs(of: &Numbers, value_of: &dyn Fn(&str) -> f64) -> Vec<(Value, bool)> {
    let good = fitting(of, value_of);
    let pairs = numbers(of, value_of).into_iter().flat_map(|(value, fits)| {
        let half_wrong = (!fits).then(|| (Array(vec![good.clone(), value.clone()]), false));
        [Some((Array(vec![value.clone(), value]), fits)), half_wrong].into_iter().flatten()
    });
    pairs.chain([1, 3].map(|count| (Array(vec![good.clone(); count]), false))).collect()
}

/// A number of the range that is not at its end where that is possible.
fn fitting(of: &Numbers, value_of: &dyn Fn(&str) -> f64) -> Value {
    match of.is_whole {
        true => Integer(value_of(&of.low.at) as i64),
        false => Float(value_of(&of.low.at) * (1.0 + STEP_ASIDE) + STEP_ASIDE),
    }
}

/// A number of the range that is greater than the one of [`fitting`].
fn greater(of: &Numbers, value_of: &dyn Fn(&str) -> f64) -> Value {
    match fitting(of, value_of) {
        Integer(value) => Integer(value + of.step),
        Float(value) => Float(2.0 * value),
        other => other,
    }
}

/// Numbers at, below and above the ends, special ones, and other types.
fn numbers(of: &Numbers, value_of: &dyn Fn(&str) -> f64) -> Vec<(Value, bool)> {
    let low = value_of(&of.low.at);
    let high = of.high.as_ref().map(|high| (high, value_of(&high.at)));
    let mut values = if of.is_whole { whole(of, low, high) } else { real(&of.low, low, high) };
    let others = [Value::String("1".into()), Value::String("many".into()), Boolean(true)];
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(Float);
    values.extend(others.into_iter().chain(special).map(|value| (value, false)));
    values
}

fn whole(of: &Numbers, low: f64, high: Option<(&Bound, f64)>) -> Vec<(Value, bool)> {
    let low = low as i64;
    let mut values = vec![(low, true), (low - 1, false), (-1, false), (i64::MIN, false), (0, low == 0 || of.or_zero)];
    if of.step > 1 {
        values.push((low + 1, false));
    }
    match high {
        Some((_, high)) => {
            let high = high as i64;
            values.extend([(high, true), (high + 1, false), (2 * high + 1, false), (i64::MAX, false)]);
        }
        None => values.push((i64::MAX, true)),
    }
    let values = values.into_iter().map(|(value, fits)| (Integer(value), fits));
    values.chain([(Float(low as f64 + 0.5), false)]).collect()
}

fn real(bound: &Bound, low: f64, high: Option<(&Bound, f64)>) -> Vec<(Value, bool)> {
    let aside = |end: f64, sign: f64| end + sign * (end * STEP_ASIDE).max(STEP_ASIDE * STEP_ASIDE);
    let mut values = vec![(low, bound.fits), (aside(low, -1.0), false), (aside(low, 1.0), true), (-1.0, false)];
    match high {
        Some((bound, high)) => {
            values.extend([(high, bound.fits), (aside(high, 1.0), false), (aside(high, -1.0), true), (1e300, false)]);
        }
        None => values.push((1e30, true)),
    }
    values.into_iter().map(|(value, fits)| (Float(value), fits)).collect()
}
