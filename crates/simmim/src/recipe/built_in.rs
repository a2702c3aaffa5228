//! The recipes inside the binary; each file opens with its source, command, hardware and result.

/// A recipe that is named, not written.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its TOML.
    pub text: &'static str,
}

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        &[$(BuiltIn { name: $name, text: include_str!(concat!("../../../../recipes/", $name, ".toml")) }),*]
    };
}

/// All built-in recipes.
pub const BUILT_IN: &[BuiltIn] = built_in![
    "demo",
    "pretrain-vit-cifar",
    "pretrain-igpt-cifar",
    "pretrain-vit-mean-colour-cifar",
    "pretrain-context-encoder-cifar",
    "pretrain-vit-photos-192",
    "pretrain-vit-s16-224",
    "pretrain-vit-b16-224",
    "pretrain-swin-cifar",
    "pretrain-swin-photos-192",
    "pretrain-swin-t-192",
    "pretrain-swin-b-192",
    "pretrain-swin-b-192-800ep",
    "pretrain-swin-l-192",
    "pretrain-swinv2-t-192",
    "pretrain-swinv2-s-192",
    "pretrain-swinv2-b-192",
    "pretrain-swinv2-l-192",
    "pretrain-swinv2-h-192",
    "pretrain-swinv2-g-192",
    "pretrain-beit-cifar",
    "tokenizer-cifar",
    "tokenizer-photos-96",
    "finetune-demo",
    "finetune-vit-cifar",
    "finetune-vit-s16-224",
    "finetune-vit-b16-224",
    "finetune-swin-t-192",
    "finetune-swin-b-192",
    "finetune-swin-b-224",
    "finetune-swin-l-224",
    "finetune-swinv2-t-224",
    "finetune-swinv2-s-224",
    "finetune-swinv2-b-224",
    "finetune-swinv2-l-224",
    "finetune-swinv2-h-224",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::resolve_any;

    #[test]
    fn every_built_in_recipe_is_valid_and_opens_with_its_source_command_hardware_and_result() {
        for recipe in BUILT_IN {
            resolve_any(recipe.name, &[]).unwrap_or_else(|e| panic!("{}: {e}", recipe.name));
            for heading in ["# Source:", "# Command:", "# Hardware:", "# Result:"] {
                assert!(recipe.text.contains(heading), "{} lacks {heading}", recipe.name);
            }
        }
    }
}
