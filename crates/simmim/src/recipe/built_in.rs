//! The recipes embedded in the binary. Each file starts with comments that give its source, command, hardware and
//! result.

/// A recipe embedded in the binary, which a user selects by name.
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
    "pretrain-vit-mean-color-cifar",
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
    "finetune-vit-photos-192",
    "finetune-vit-s16-224",
    "finetune-vit-b16-224",
    "finetune-swin-t-192",
    "finetune-swin-b-192",
    "finetune-swin-b-224",
    "finetune-swin-b-224-800ep",
    "finetune-swin-l-224",
    "finetune-swinv2-t-224",
    "finetune-swinv2-s-224",
    "finetune-swinv2-b-224",
    "finetune-swinv2-l-224",
    "finetune-swinv2-h-224",
    "finetune-swinv2-g-224",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoders::{EncoderConfig, SwinV2Config};
    use crate::recipe::{AnyRecipe, ImageSize, ScheduleKind, resolve_any};

    /// The values in which the official configs differ: image side; window (Swin) or patch side (ViT); drop-path rate;
    /// total and warm-up epochs; base, warm-up and minimum learning rate; layer decay.
    type Row = (usize, usize, f32, [f64; 2], [f64; 3], f64);

    #[track_caller]
    fn check_row(name: &str, (image, window, drop_path, [epochs, warmup], rates, layer_decay): Row) {
        let (encoder, data, train) = match resolve_any(name, &[]).unwrap() {
            AnyRecipe::Pretrain(recipe) => {
                assert_eq!((recipe.mask.unit_px, recipe.mask.ratio), (32, 0.6), "{name}");
                (recipe.encoder, recipe.data, recipe.train)
            }
            AnyRecipe::Finetune(recipe) => (recipe.encoder, recipe.data, recipe.train),
            AnyRecipe::Tokenizer(_) => panic!("{name} is a tokenizer recipe"),
        };
        let found = match encoder {
            EncoderConfig::Vit(vit) => (vit.patch_px, vit.drop_path),
            EncoderConfig::Swin(swin) => (swin.window, swin.drop_path),
            EncoderConfig::SwinV2(swin) => (swin.window, swin.drop_path),
        };
        assert_eq!((data.image_size, found), (ImageSize::Square(image), (window, drop_path)), "{name}");
        assert_eq!([train.epochs, train.warmup_epochs], [epochs, warmup], "{name}");
        assert_eq!([train.base_lr, train.warmup_lr, train.min_lr], rates, "{name}");
        let schedule = match epochs {
            800.0 => (ScheduleKind::Multistep, vec![700.0], Some(0.1)),
            _ if name.starts_with("finetune-swinv2") => (ScheduleKind::CosineAfterWarmup, vec![], None),
            _ => (ScheduleKind::Cosine, vec![], None),
        };
        assert_eq!((train.schedule, train.milestones_epochs, train.decay_factor), schedule, "{name}");
        assert_eq!((train.batch_size, train.weight_decay, train.layer_decay), (2048, 0.05, layer_decay), "{name}");
    }

    #[test]
    fn every_official_config_has_a_recipe_with_its_values() {
        // microsoft/SimMIM, `configs/`, and `config.py` for the default minimum learning rate, which the long schedules
        // keep; SwinV2: microsoft/Swin-Transformer, `configs/simmim/`
        let (short, long, tune) = ([2e-4, 1e-6, 1e-5], [1e-4, 5e-7, 5e-6], [1.25e-3, 2.5e-7, 2.5e-7]);
        for (name, row) in [
            ("pretrain-swin-b-192", (192, 6, 0.0, [100.0, 10.0], short, 1.0)),
            ("pretrain-swin-b-192-800ep", (192, 6, 0.0, [800.0, 10.0], long, 1.0)),
            ("pretrain-swin-l-192", (192, 12, 0.0, [800.0, 10.0], long, 1.0)),
            ("pretrain-vit-b16-224", (224, 16, 0.1, [800.0, 10.0], long, 1.0)),
            ("pretrain-swinv2-b-192", (192, 12, 0.1, [800.0, 10.0], long, 1.0)),
            ("finetune-swin-b-192", (192, 6, 0.1, [100.0, 20.0], tune, 0.9)),
            ("finetune-swin-b-224", (224, 7, 0.1, [100.0, 20.0], tune, 0.9)),
            ("finetune-swin-b-224-800ep", (224, 7, 0.1, [100.0, 20.0], tune, 0.8)),
            ("finetune-swin-l-224", (224, 14, 0.2, [100.0, 20.0], tune, 0.7)),
            ("finetune-vit-b16-224", (224, 16, 0.1, [100.0, 20.0], tune, 0.65)),
            ("finetune-swinv2-b-224", (224, 14, 0.1, [100.0, 20.0], tune, 0.75)),
        ] {
            check_row(name, row);
        }
    }

    #[test]
    fn swin_v2_is_fine_tuned_as_the_network_that_was_pre_trained() {
        let swin = |name: &str| match resolve_any(name, &[]).unwrap().encoder() {
            Some(EncoderConfig::SwinV2(config)) => config.clone(),
            other => panic!("{name}: {other:?}"),
        };
        for size in ["t", "s", "b", "l", "h", "g"] {
            let tuned = swin(&format!("finetune-swinv2-{size}-224"));
            let expected = SwinV2Config {
                norm_eps: 1e-5,
                window: 14,
                pretrained_window_size: vec![12, 12, 12, 6],
                ..swin(&format!("pretrain-swinv2-{size}-192"))
            };
            assert_eq!(tuned, expected, "{size}");
        }
    }

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
