//! An interpreter of the pickles that `torch.save` writes, protocols 2 to 4 (Python's `Lib/pickletools.py` describes
//! every instruction). It knows an allow-list of instructions and of names, and makes only what [`Value`] can hold:
//! nothing in a pickle is ever called.

use super::TorchFault;
use super::cursor::Cursor;
use super::objects::{Global, Id, SET, Storage, Tensor, Value};
use super::stack::{MAX_DIMENSIONS, Stack};

/// The values of a pickle.
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    top: Id,
}

impl<'a> Pickle<'a> {
    /// The value that the pickle is of.
    pub(super) fn top(&self) -> &Value<'a> {
        self.get(self.top)
    }

    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id.0 as usize]
    }

    /// All values, in the order in which they were made.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value<'a>> {
        self.values.iter()
    }
}

/// Reads a pickle.
///
/// # Errors
/// If it is broken or too large, or has an instruction or a name that is not allowed.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle<'_>, TorchFault> {
    let mut machine = Machine { cursor: Cursor::new(bytes), stack: Stack::default() };
    while !machine.step()? {}
    let top = machine.stack.pop().map_err(|what| machine.cursor.broken(what))?;
    Ok(Pickle { values: machine.stack.into_values(), top })
}

struct Machine<'a> {
    cursor: Cursor<'a>,
    stack: Stack<'a>,
}

impl<'a> Machine<'a> {
    /// Runs one instruction; returns whether it was the last.
    fn step(&mut self) -> Result<bool, TorchFault> {
        let start = self.cursor.at;
        let cursor = &mut self.cursor;
        let value = match cursor.number::<1>()?[0] {
            b'.' => return Ok(true),
            0x80 => match cursor.number::<1>()?[0] {
                2..=4 => return Ok(false),
                _ => return Err(cursor.broken("its protocol is not 2, 3 or 4")),
            },
            0x95 => {
                cursor.number::<8>()?; // a frame says how many bytes to read ahead
                return Ok(false);
            }
            b'N' | 0x88 | 0x89 => Value::Plain,
            b'G' => {
                cursor.number::<8>()?;
                Value::Plain
            }
            b'J' => Value::Int(i32::from_le_bytes(cursor.number()?).into()),
            b'K' => Value::Int(cursor.number::<1>()?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(cursor.number()?).into()),
            0x8a => cursor.long()?.map_or(Value::Plain, Value::Int),
            b'X' => Value::Text(cursor.text::<4>()?),
            0x8c => Value::Text(cursor.text::<1>()?),
            0x8d => Value::Text(cursor.text::<8>()?),
            b'B' => plain(cursor.counted::<4>()?),
            b'C' => plain(cursor.counted::<1>()?),
            0x8e => plain(cursor.counted::<8>()?),
            b')' => Value::Tuple(Vec::new()),
            b']' => Value::List(Vec::new()),
            b'}' => Value::Dict(Vec::new()),
            0x8f => Value::Object(SET),
            b'c' => Value::Global(Global::named(cursor.line()?, cursor.line()?)?),
            other => return self.change(other, start).map(|()| false),
        };
        self.stack.push(value).map(|()| false)
    }

    /// Runs an instruction that changes what is on the stack.
    fn change(&mut self, opcode: u8, start: usize) -> Result<(), TorchFault> {
        let cursor = &mut self.cursor;
        let index = match opcode {
            b'q' | b'h' => cursor.number::<1>()?[0].into(),
            b'r' | b'j' => u32::from_le_bytes(cursor.number()?),
            _ => self.stack.remembered(),
        };
        let at_end = *cursor;
        let broken = |what| at_end.broken(what);
        let stack = &mut self.stack;
        match opcode {
            b'(' => stack.mark(),
            b'q' | b'r' | 0x94 => stack.remember(index).map_err(broken)?,
            b'h' | b'j' => stack.recall(index).map_err(broken)?,
            0x85..=0x87 => {
                let items = stack.pop_many((opcode - 0x84).into()).map_err(broken)?;
                stack.push(Value::Tuple(items))?;
            }
            b't' => {
                let items = stack.pop_to_mark().map_err(broken)?;
                stack.push(Value::Tuple(items))?;
            }
            b'a' => {
                let item = stack.pop_many(1).map_err(broken)?;
                append(stack, &item).map_err(broken)?;
            }
            b'e' | 0x90 => {
                let items = stack.pop_to_mark().map_err(broken)?;
                append(stack, &items).map_err(broken)?;
            }
            b's' => {
                let pair = stack.pop_many(2).map_err(broken)?;
                set_items(stack, &pair).map_err(broken)?;
            }
            b'u' => {
                let pairs = stack.pop_to_mark().map_err(broken)?;
                set_items(stack, &pairs).map_err(broken)?;
            }
            0x93 => {
                let (name, module) = (stack.pop_text().map_err(broken)?, stack.pop_text().map_err(broken)?);
                stack.push(Value::Global(Global::named(module, name)?))?;
            }
            b'R' => {
                let arguments = stack.pop_tuple().map_err(broken)?;
                self.reduce(&arguments)?;
            }
            0x81 => {
                stack.pop_tuple().map_err(broken)?;
                self.new_object()?;
            }
            b'b' => {
                stack.pop().map_err(broken)?;
                build(stack).map_err(broken)?;
            }
            b'Q' => {
                let name = stack.pop_tuple().map_err(broken)?;
                self.persistent(&name)?;
            }
            other => return Err(TorchFault::Opcode { name: opcode_name(other), at: start }),
        }
        Ok(())
    }

    /// Makes what a call would make, for the names that are allowed.
    fn reduce(&mut self, arguments: &[Id]) -> Result<(), TorchFault> {
        let broken = |what| self.cursor.broken(what);
        let stack = &mut self.stack;
        let callable = stack.pop().map_err(broken)?;
        let Value::Global(global) = *stack.get(callable) else { return Err(broken("it calls what is no name")) };
        match (global, arguments) {
            (Global::OrderedDict, []) => stack.push(Value::Dict(Vec::new())),
            (Global::PassedOver(class), _) => stack.push(Value::Object(class)),
            // the state of a parameter beside its tensor is of no use here
            (Global::RebuildParameter, [tensor, ..]) if matches!(stack.get(*tensor), Value::Tensor(_)) => {
                stack.push_again(*tensor);
                Ok(())
            }
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let tensor = tensor(stack, [*storage, *offset, *shape, *strides]);
                let tensor = tensor.ok_or_else(|| broken("a tensor is made of other values than it needs"))?;
                stack.push(Value::Tensor(Box::new(tensor)))
            }
            (Global::OrderedDict | Global::RebuildParameter | Global::RebuildTensor | Global::StorageOf(_), _) => {
                Err(broken("it calls a name with other values than it needs"))
            }
        }
    }

    /// Makes an object of a class that is passed over.
    fn new_object(&mut self) -> Result<(), TorchFault> {
        let broken = |what| self.cursor.broken(what);
        let class = self.stack.pop().map_err(broken)?;
        match *self.stack.get(class) {
            Value::Global(Global::PassedOver(class)) => self.stack.push(Value::Object(class)),
            _ => Err(broken("it makes an object of what is no class")),
        }
    }

    /// Makes a storage of the name under which torch keeps it outside of the pickle.
    fn persistent(&mut self, name: &[Id]) -> Result<(), TorchFault> {
        let parts: Vec<&Value> = name.iter().map(|id| self.stack.get(*id)).collect();
        let [Value::Text("storage"), Value::Global(Global::StorageOf(dtype)), Value::Text(key), _, Value::Int(values)] =
            parts[..]
        else {
            return Err(self.cursor.broken("a storage is named in another way than torch does"));
        };
        let (dtype, key) = (*dtype, *key);
        let is_number = (1..=20).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_digit());
        match u64::try_from(*values).ok().filter(|_| is_number) {
            Some(values) => self.stack.push(Value::Storage(Storage { key, dtype, values })),
            None => Err(TorchFault::Storage { key: key.to_owned(), what: "has no number for a name or size".into() }),
        }
    }
}

/// Bytes are of no use for weights.
fn plain<'a>(_: &[u8]) -> Value<'a> {
    Value::Plain
}

fn tensor<'a>(stack: &Stack<'a>, [storage, offset, shape, strides]: [Id; 4]) -> Option<Tensor<'a>> {
    let size = |id: Id| if let Value::Int(number) = stack.get(id) { u64::try_from(*number).ok() } else { None };
    // a tuple can be used again and again at no cost in bytes, so that a long one would take much memory
    let sizes = |tuple: Id| match stack.get(tuple) {
        Value::Tuple(items) if items.len() <= MAX_DIMENSIONS => items.iter().map(|item| size(*item)).collect(),
        _ => None,
    };
    let Value::Storage(storage) = *stack.get(storage) else { return None };
    let (shape, strides): (Vec<u64>, Vec<u64>) = (sizes(shape)?, sizes(strides)?);
    let shape: Vec<usize> = shape.into_iter().map(usize::try_from).collect::<Result<_, _>>().ok()?;
    let is_whole = shape.len() == strides.len();
    Some(Tensor { storage, offset: size(offset)?, shape, strides }).filter(|_| is_whole)
}

fn append(stack: &mut Stack<'_>, items: &[Id]) -> Result<(), &'static str> {
    match stack.peek()? {
        Value::List(list) => list.extend_from_slice(items),
        Value::Object(_) => {}
        _ => return Err("it appends to what is no list"),
    }
    Ok(())
}

fn set_items(stack: &mut Stack<'_>, items: &[Id]) -> Result<(), &'static str> {
    let (pairs, rest) = items.as_chunks::<2>();
    match stack.peek()? {
        Value::Dict(dict) if rest.is_empty() => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
        Value::Object(_) => {}
        _ => return Err("it sets items of what is no dict"),
    }
    Ok(())
}

/// Drops the attributes of an object: those of a dict are versions of modules, and others are passed over.
fn build(stack: &mut Stack<'_>) -> Result<(), &'static str> {
    match stack.peek()? {
        Value::Dict(_) | Value::Object(_) => Ok(()),
        _ => Err("it gives attributes to what has none"),
    }
}

/// The name of an instruction that is not allowed.
fn opcode_name(code: u8) -> String {
    let known = match code {
        b'i' => "INST",
        b'o' => "OBJ",
        b'P' => "PERSID",
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x92 => "NEWOBJ_EX",
        other => return format!("0x{other:02x}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_values_are_made_than_any_model_has() {
        let pickle = |values: usize| [b"\x80\x02".as_slice(), &vec![b'N'; values], b"."].concat();
        assert!(read(&pickle(1 << 21)).is_ok());
        assert!(matches!(read(&pickle((1 << 21) + 1)), Err(TorchFault::TooLarge { what: "values", .. })));
    }

    #[test]
    fn numbers_of_every_length_are_those_of_python() {
        // pickle.dumps(n, 2) without its first two bytes and the last
        let check = |bytes: &[u8], expected: Option<i64>| {
            let whole = [b"\x80\x02", bytes, b"."].concat();
            let pickle = read(&whole).unwrap();
            let found = if let Value::Int(number) = pickle.top() { Some(*number) } else { None };
            assert_eq!(found, expected, "{bytes:?}");
        };
        check(b"K\xff", Some(255));
        check(b"M\x00\x01", Some(256));
        check(b"J\xff\xff\xff\xff", Some(-1));
        check(b"\x8a\x05\x00\xf2\x05\x2a\x01", Some(5_000_000_000));
        check(b"\x8a\x05\x00\x0e\xfa\xd5\xfe", Some(-5_000_000_000));
        check(b"\x8a\x00", Some(0));
        check(b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01", None);
    }
}
