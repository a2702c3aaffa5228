//! The stack and the memo of a pickle. A fault is said by what is missing; where is known to whoever runs it.

use super::TorchFault;
use super::objects::{Id, Value};
use std::collections::HashMap;

/// The most values that are read. A checkpoint of 1,000 parameters with its optimizer has some 50,000.
const MAX_VALUES: usize = 1 << 21;

/// The most dimensions of a tensor that are read; weights have four, or five in video models.
pub(super) const MAX_DIMENSIONS: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Stack<'a> {
    /// All values that were made.
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at which marks were set.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Stack<'a> {
    pub(super) fn into_values(self) -> Vec<Value<'a>> {
        self.values
    }

    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id.0 as usize]
    }

    /// Puts a new value on top.
    ///
    /// # Errors
    /// If there are too many.
    pub(super) fn push(&mut self, value: Value<'a>) -> Result<(), TorchFault> {
        if self.values.len() >= MAX_VALUES {
            return Err(TorchFault::TooLarge { what: "values", limit: MAX_VALUES });
        }
        self.stack.push(Id(self.values.len() as u32));
        self.values.push(value);
        Ok(())
    }

    /// Puts a value on top that was there before.
    pub(super) fn push_again(&mut self, id: Id) {
        self.stack.push(id);
    }

    pub(super) fn mark(&mut self) {
        self.marks.push(self.stack.len());
    }

    /// Takes the topmost value off, if there is one above the last mark.
    pub(super) fn pop(&mut self) -> Result<Id, &'static str> {
        let floor = self.floor();
        let is_there = self.stack.len() > floor;
        self.stack.pop().filter(|_| is_there).ok_or(MISSING)
    }

    pub(super) fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, &'static str> {
        let start = self.stack.len().checked_sub(count).filter(|start| *start >= self.floor()).ok_or(MISSING)?;
        Ok(self.stack.split_off(start))
    }

    pub(super) fn pop_to_mark(&mut self) -> Result<Vec<Id>, &'static str> {
        let mark = self.marks.pop().ok_or("a mark is missing on its stack")?;
        Ok(self.stack.split_off(mark))
    }

    /// Takes a tuple off. No call that is made has more values than [`MAX_DIMENSIONS`], and the rest is left out,
    /// because a tuple can be used again and again at no cost in bytes.
    pub(super) fn pop_tuple(&mut self) -> Result<Vec<Id>, &'static str> {
        let id = self.pop()?;
        match self.get(id) {
            Value::Tuple(items) => Ok(items.iter().take(MAX_DIMENSIONS).copied().collect()),
            _ => Err("it calls with what is no tuple"),
        }
    }

    pub(super) fn pop_text(&mut self) -> Result<&'a str, &'static str> {
        let id = self.pop()?;
        if let Value::Text(text) = *self.get(id) { Ok(text) } else { Err("a name is no text") }
    }

    pub(super) fn peek(&mut self) -> Result<&mut Value<'a>, &'static str> {
        let floor = self.floor();
        let top = self.stack.last().filter(|_| self.stack.len() > floor).ok_or(MISSING)?;
        Ok(&mut self.values[top.0 as usize])
    }

    /// The number of values that were remembered.
    pub(super) fn remembered(&self) -> u32 {
        self.memo.len() as u32
    }

    pub(super) fn remember(&mut self, index: u32) -> Result<(), &'static str> {
        let floor = self.floor();
        let top = self.stack.last().filter(|_| self.stack.len() > floor).ok_or(MISSING)?;
        self.memo.insert(index, *top);
        Ok(())
    }

    pub(super) fn recall(&mut self, index: u32) -> Result<(), &'static str> {
        let id = self.memo.get(&index).ok_or("it recalls what it has not remembered")?;
        self.stack.push(*id);
        Ok(())
    }

    /// The height of the stack at the last mark: what is below is out of reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }
}

const MISSING: &str = "a value is missing on its stack";
