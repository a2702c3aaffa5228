//! `simmim recipes`.

use super::print_result;
use crate::cli::{Common, RecipesArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::recipe::{self, BUILT_IN};

pub(crate) fn run(common: &Common, args: &RecipesArgs) -> anyhow::Result<Exit> {
    let Some(name) = &args.name else {
        let title = |text: &str| text.lines().next().unwrap_or_default().trim_start_matches("# ").to_owned();
        let lines: Vec<String> = BUILT_IN.iter().map(|r| format!("{:26} {}", r.name, title(r.text))).collect();
        let names: Vec<&str> = BUILT_IN.iter().map(|r| r.name).collect();
        print_result(common.json, &lines.join("\n"), &json!({ "recipes": names }))?;
        return Ok(Exit::Done);
    };
    let recipe = recipe::resolve_any(name, &common.set)?;
    let text = match BUILT_IN.iter().find(|r| r.name == name) {
        Some(built_in) if common.set.is_empty() => built_in.text.trim_end().to_owned(),
        _ => recipe.to_toml(),
    };
    print_result(common.json, &text, &serde_json::to_value(&recipe)?)?;
    Ok(Exit::Done)
}
