//! The tables of keys in `docs/RECIPES.md`, and the notation of their ranges.

use std::collections::BTreeMap;

/// What the document says of a key.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// Descriptions, one after the other.
    pub(crate) meaning: String,
    /// Ranges; a key has several if its form depends on another key.
    pub(crate) ranges: Vec<Range>,
}

/// What values fit a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Range {
    Name,
    Text,
    TrueOrFalse,
    /// One number.
    One(Numbers),
    /// One number, or two in a list.
    OneOrTwo(Numbers),
    /// Two numbers in a list.
    Two(Numbers),
    /// Any number of numbers in a list.
    List(Numbers),
    /// Two numbers in a list, of which the second is at least the first.
    InOrder(Numbers),
    /// Two numbers in a list, of which the second is greater than zero.
    CenterAndWidth,
    /// Numbers in a list, each greater than the one before.
    Ascending(Numbers),
}

/// What numbers fit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Numbers {
    pub(crate) is_whole: bool,
    pub(crate) low: Bound,
    pub(crate) high: Option<Bound>,
    /// Whether zero fits, too, though it is below the lower bound.
    pub(crate) or_zero: bool,
    /// Whole numbers that fit differ from the lower bound by a multiple of this.
    pub(crate) step: i64,
}

/// The end of a range.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bound {
    /// A number, the name of a key, or `1/` and the name of a key.
    pub(crate) at: String,
    /// Whether the end itself fits.
    pub(crate) fits: bool,
}

/// The rows of each section.
pub(crate) fn documented() -> BTreeMap<String, BTreeMap<String, Row>> {
    let text = include_str!("../../../../docs/RECIPES.md");
    let mut sections: BTreeMap<String, BTreeMap<String, Row>> = BTreeMap::new();
    let (mut section, mut keys) = (String::new(), Vec::new());
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').splitn(3, '|').map(str::trim).collect();
        let [first, range, meaning] = cells[..] else { panic!("expected three columns in {line}") };
        if let Some(name) = first.strip_prefix("**`").and_then(|rest| rest.strip_suffix("`**")) {
            section = name.to_owned();
            continue;
        }
        if !first.is_empty() {
            keys = first.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        }
        for key in &keys {
            let row = sections.entry(section.clone()).or_default().entry(key.clone()).or_default();
            row.meaning += meaning;
            if !range.is_empty() {
                row.ranges.push(parsed(range));
            }
        }
    }
    sections
}

fn parsed(range: &str) -> Range {
    match range {
        "name" => return Range::Name,
        "text" => return Range::Text,
        "true or false" => return Range::TrueOrFalse,
        "center, width > 0" => return Range::CenterAndWidth,
        _ => {}
    }
    let of = |words: &str| range.strip_prefix(words).map(numbers);
    if let Some(of) = of("one or two of ") {
        Range::OneOrTwo(of)
    } else if let Some(of) = of("two of ") {
        Range::Two(of)
    } else if let Some(of) = of("list of ") {
        if range.contains("< y") { Range::Ascending(of) } else { Range::List(of) }
    } else if range.contains("x ≤ y") {
        Range::InOrder(numbers(range))
    } else {
        Range::One(numbers(range))
    }
}

/// Parses `n ≥ 1`, `0 < x ≤ 1`, `0 < x ≤ y ≤ 1`, `0 or 2 ≤ n ≤ 128`, `3 ≤ n ≤ 9, odd` and `4 ≤ n ≤ 8, a multiple of 4`.
fn numbers(text: &str) -> Numbers {
    let (text, step) = match text.split_once(", ") {
        None => (text, 1),
        Some((text, "odd")) => (text, 2),
        Some((text, more)) => (text, more.strip_prefix("a multiple of ").and_then(|step| step.parse().ok()).unwrap()),
    };
    let (or_zero, text) = text.strip_prefix("0 or ").map_or((false, text), |text| (true, text));
    let bound = |at: &str, sign: &str| {
        assert!(["≤", "<", "≥", ">"].contains(&sign), "what is {sign:?} in {text:?}?");
        Bound { at: at.to_owned(), fits: ["≤", "≥"].contains(&sign) }
    };
    let words: Vec<&str> = text.split(' ').collect();
    let (name, low, high) = match words[..] {
        [name, sign @ ("≥" | ">"), low] => (name, bound(low, sign), None),
        [low, sign, name] | [low, sign, name, _, "y"] => (name, bound(low, sign), None),
        [low, sign, name, to, high] | [low, sign, name, _, "y", to, high] => {
            (name, bound(low, sign), Some(bound(high, to)))
        }
        _ => panic!("what does {text:?} mean?"),
    };
    assert!(["n", "x"].contains(&name), "expected n or x in {text:?}");
    Numbers { is_whole: name == "n", low, high, or_zero, step }
}

#[test]
fn the_notation_of_ranges_is_understood() {
    let at = |at: &str, fits: bool| Bound { at: at.into(), fits };
    let of = |is_whole, low, high| Numbers { is_whole, low, high, or_zero: false, step: 1 };
    for (text, expected) in [
        ("n ≥ 1", Range::One(of(true, at("1", true), None))),
        ("0 < x ≤ 1", Range::One(of(false, at("0", false), Some(at("1", true))))),
        ("0 < x ≤ y", Range::InOrder(of(false, at("0", false), None))),
        ("0 < x ≤ y ≤ 1", Range::InOrder(of(false, at("0", false), Some(at("1", true))))),
        ("list of 0 ≤ x < y", Range::Ascending(of(false, at("0", true), None))),
        ("two of 0 ≤ x ≤ 0.5", Range::Two(of(false, at("0", true), Some(at("0.5", true))))),
        ("1 ≤ n ≤ width", Range::One(of(true, at("1", true), Some(at("width", true))))),
        ("3 ≤ n ≤ 9, odd", Range::One(Numbers { step: 2, ..of(true, at("3", true), Some(at("9", true))) })),
        (
            "list of 0 or 2 ≤ n ≤ 8",
            Range::List(Numbers { or_zero: true, ..of(true, at("2", true), Some(at("8", true))) }),
        ),
    ] {
        assert_eq!(parsed(text), expected, "{text}");
    }
}
