//! `simmim import`.

use super::print_result;
use crate::cli::{Common, ImportArgs};
use crate::exit::Exit;
use serde_json::{Value, json};
use simmim::weights::adapt;

pub(crate) fn run(common: &Common, args: &ImportArgs) -> anyhow::Result<Exit> {
    let adapted = adapt(&args.file, &common.set, args.channels.map(Into::into), &args.out)?;
    let import = adapted.import.unwrap_or_default();
    let lines = [import.lines(), adapted.transfer.lines()].concat();
    let named = |(name, reason): &(String, String)| json!({ "name": name, "reason": reason });
    let left_out: Vec<Value> = import.left_out.iter().chain(&adapted.transfer.skipped).map(named).collect();
    let resized: Vec<Value> = adapted
        .transfer
        .resized
        .iter()
        .map(|(name, from, to)| json!({ "name": name, "from": from, "to": to }))
        .collect();
    let json = json!({
        "weights": args.out,
        "convention": import.convention,
        "notes": import.notes,
        "parameters": adapted.parameters,
        "left_out": left_out,
        "resized": resized,
        "initialized": adapted.transfer.initialized,
        "assumed": import.assumed,
        "recipe": adapted.recipe,
    });
    let prose = format!("{}\nwrote {} ({} values)", lines.join("\n"), args.out.display(), adapted.parameters);
    print_result(common.json, &prose, &json)?;
    Ok(Exit::Done)
}
