//! `simmim export`.

use super::print_result;
use crate::cli::{Common, ExportArgs};
use crate::exit::Exit;
use serde_json::{Value, json};
use simmim::weights::export;

pub(crate) fn run(common: &Common, args: &ExportArgs) -> anyhow::Result<Exit> {
    let exported = export(&args.from, args.format.into(), &args.out)?;
    let left_out: Vec<Value> =
        exported.left_out.iter().map(|(name, reason)| json!({ "name": name, "reason": reason })).collect();
    let json = json!({
        "model": exported.model,
        "files": exported.files,
        "tensors": exported.tensors,
        "left_out": left_out,
        "notes": exported.notes,
    });
    let mut lines = vec![format!("{}: {} tensors", exported.model, exported.tensors)];
    lines.extend(exported.notes);
    lines.extend(exported.left_out.iter().map(|(name, reason)| format!("left out {name}: {reason}")));
    lines.push(format!("wrote {}; README.md says how to load it", args.out.display()));
    print_result(common.json, &lines.join("\n"), &json)?;
    Ok(Exit::Done)
}
