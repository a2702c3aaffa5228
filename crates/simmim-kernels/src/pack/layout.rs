//! The sizes of a packed operand and the order of its lanes, which `mod.rs` draws.

use crate::dtype::Dtype;
use std::ops::Range;

/// The sizes of a packed operand, which determine where each of its lanes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedLayout {
    pub(super) columns: usize,
    pub(super) width: usize,
    pub(super) steps: usize,
    pub(super) segments: usize,
    pub(super) order: Order,
}

/// The order of the lanes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Step by step.
    Steps,
    /// By squares of [`SQUARE`] steps, each column by column.
    Squares,
}

/// Steps, and columns, of the squares that a unit for tiles reads.
pub(crate) const SQUARE: usize = 16;

impl PackedLayout {
    /// One segment of a `[depth, columns]` operand in groups of `width` columns, step by step.
    pub(crate) fn new<T: Dtype>(depth: usize, columns: usize, width: usize) -> Self {
        Self { columns, width, steps: depth.div_ceil(T::PER_LANE), segments: 1, order: Order::Steps }
    }

    /// The same with the depth filled up to whole squares.
    pub(crate) fn with_whole_squares(self) -> Self {
        Self { steps: self.steps.next_multiple_of(SQUARE), ..self }
    }

    /// The same in squares.
    pub(crate) fn in_squares(self) -> Self {
        Self { order: Order::Squares, ..self.with_whole_squares() }
    }

    /// Steps of a segment, each one lane of depth.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// This layout with `segments` segments that follow each other.
    pub fn repeated(self, segments: usize) -> Self {
        Self { segments, ..self }
    }

    /// Columns, without the zeros that fill the last group.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Columns of a group.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Groups of columns.
    pub fn groups(&self) -> usize {
        self.columns.div_ceil(self.width)
    }

    /// Lanes of one group in one segment.
    pub fn group_lanes(&self) -> usize {
        self.steps * self.width
    }

    /// Lanes of one segment.
    pub fn segment_lanes(&self) -> usize {
        self.groups() * self.group_lanes()
    }

    /// Lanes in all.
    ///
    /// # Panics
    /// If there are more than memory could hold.
    pub fn lanes(&self) -> usize {
        let of_segment = self.steps.checked_mul(self.width).and_then(|lanes| lanes.checked_mul(self.groups()));
        let lanes = of_segment.and_then(|lanes| lanes.checked_mul(self.segments));
        lanes.unwrap_or_else(|| panic!("{self:?} has more lanes than memory holds"))
    }
}

/// A packed operand in a borrowed slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Packed<'a> {
    lanes: &'a [u32],
    layout: PackedLayout,
}

impl<'a> Packed<'a> {
    /// The operand that was packed to `lanes` in `layout`.
    ///
    /// # Panics
    /// If there are fewer lanes than the layout has.
    pub fn new(lanes: &'a [u32], layout: PackedLayout) -> Self {
        assert!(lanes.len() >= layout.lanes(), "{} lanes for {layout:?}", lanes.len());
        Self { lanes, layout }
    }

    /// The lanes from the first one of a group in a segment on, with everything after that group.
    pub(crate) fn lanes_from(&self, segment: usize, group: usize) -> &'a [u32] {
        &self.lanes[segment * self.segment_lanes() + group * self.layout.group_lanes()..]
    }

    /// The lanes of some groups in a segment.
    pub fn lanes_of_groups(&self, segment: usize, groups: Range<usize>) -> &'a [u32] {
        &self.lanes[segment * self.segment_lanes()..][groups.start * self.layout.group_lanes()..]
            [..groups.len() * self.layout.group_lanes()]
    }

    /// The operand with some of the zeros that fill its last group as columns of their own.
    ///
    /// # Panics
    /// If there would be fewer columns, or more groups.
    pub(crate) fn with_columns_of_zeros(self, columns: usize) -> Self {
        let layout = PackedLayout { columns, ..self.layout };
        assert!(columns >= self.layout.columns && layout.groups() == self.layout.groups(), "{columns} of {layout:?}");
        Self { layout, ..self }
    }

    /// Groups `first .. first + count`, or as many as there are, as an operand by themselves.
    ///
    /// # Panics
    /// If there are several segments, as the same groups of two segments do not follow each other.
    pub fn groups_from(self, first: usize, count: usize) -> Self {
        let PackedLayout { columns, width, .. } = self.layout;
        assert_eq!(self.layout.segments, 1, "only the groups of a single segment follow each other");
        let columns = columns.min((first + count) * width) - first * width;
        Self::new(&self.lanes[first * self.layout.group_lanes()..], PackedLayout { columns, ..self.layout })
    }

    /// Columns, without the zeros that fill the last group.
    pub fn columns(&self) -> usize {
        self.layout.columns
    }

    /// Columns of a group.
    pub fn width(&self) -> usize {
        self.layout.width
    }

    /// Steps of a segment, each one lane of depth.
    pub fn steps(&self) -> usize {
        self.layout.steps
    }

    /// The order of the lanes of a group.
    pub(super) fn order(&self) -> Order {
        self.layout.order
    }

    /// Parts that the depth is divided into.
    pub fn segments(&self) -> usize {
        self.layout.segments
    }

    /// Groups of columns.
    pub fn groups(&self) -> usize {
        self.layout.groups()
    }

    /// Distance of a group's lanes from one segment to the next.
    pub fn segment_lanes(&self) -> usize {
        self.layout.segment_lanes()
    }
}
