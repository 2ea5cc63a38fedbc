//! Does what no plugin should; the host's tests run it. The setting `mode` says what.

use std::hint::black_box;

use modalflow_plugin::bytes::{Body, Payload};
use modalflow_plugin::object_store::Store;
use modalflow_plugin::xcom_backend::{export, plugin, xcom};
use modalflow_plugin::{Error, clock, random, read_settings, settings};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    mode: String,
    /// The path that the modes `read` and `write` try.
    #[serde(default)]
    path: String,
}

struct Evil;

impl plugin::Guest for Evil {
    fn describe() -> plugin::Manifest {
        plugin::Manifest {
            name: "evil".to_owned(),
            version: "0.1.0".to_owned(),
            summary: env!("CARGO_PKG_DESCRIPTION").to_owned(),
            wishes: vec![plugin::Wish {
                capability: "store".to_owned(),
                name: "loot".to_owned(),
                write: true,
                required: false,
                why: "it wants everything".to_owned(),
            }],
            settings_schema: "{}".to_owned(),
        }
    }

    fn check_settings(settings: String) -> Vec<plugin::Problem> {
        if settings.contains("spin-in-check") {
            spin();
        }
        let wrong = modalflow_plugin::settings_error::<Settings>(&settings);
        wrong
            .into_iter()
            .map(|message| plugin::Problem {
                pointer: "/mode".to_owned(),
                message,
            })
            .collect()
    }
}

/// Kept between calls, if the host let it.
static mut CALLS: u32 = 0;

impl xcom::Guest for Evil {
    fn put(_at: xcom::Coordinate, value: Payload) -> Result<xcom::Stored, Error> {
        let settings: Settings = read_settings()?;
        match settings.mode.as_str() {
            "spin" => spin(),
            "trap" => trap(),
            "panic" => panic!("out of ideas"),
            "recurse" => Ok(in_database(&recurse(1).to_string())),
            "memory" => Ok(in_database(&hoard().to_string())),
            "handles" => loop {
                std::mem::forget(Body::of(b"x"));
            },
            "storm" => loop {
                black_box(settings::current_limits());
            },
            "drip" => loop {
                black_box(random::bytes(64 << 10));
            },
            "long-error" => Err(Error::Failed("long ".repeat(1 << 20))),
            "huge-answer" => Ok(in_database(&"[".repeat(40 << 20))),
            "not-json" => Ok(in_database("{not json")),
            "forged-reference" => Ok(reference(vec![("uri".to_owned(), "x".to_owned())])),
            "many-attributes" => Ok(reference(
                (0..100).map(|n| (n.to_string(), n.to_string())).collect(),
            )),
            "state" => Ok(in_database(&count().to_string())),
            "write" => {
                let meta = Store::open("loot")?.put(&settings.path, value)?;
                Ok(in_database(&meta.size.to_string()))
            }
            "read" => {
                let (meta, _) = Store::open("loot")?.get(&settings.path, None)?;
                Ok(in_database(&meta.size.to_string()))
            }
            "other-store" => Store::open("xcom").map(|_| in_database("\"opened\"")),
            "clock" => Ok(in_database(&clock::now().to_string())),
            mode => Err(Error::Invalid(format!("no mode {mode:?}"))),
        }
    }

    fn get(_at: xcom::Coordinate, _stored: xcom::Stored) -> Result<Payload, Error> {
        Ok(Payload::Inline(vec![b'x'; 32 << 20]))
    }

    fn purge(_scope: xcom::Scope, known: Vec<xcom::Reference>) -> Result<u64, Error> {
        Ok(known.len() as u64)
    }
}

fn in_database(json: &str) -> xcom::Stored {
    xcom::Stored::InDatabase(json.to_owned())
}

fn reference(attributes: Vec<(String, String)>) -> xcom::Stored {
    let uri = "loot:x".to_owned();
    xcom::Stored::Elsewhere(xcom::Reference {
        uri,
        size: None,
        preview: None,
        attributes,
    })
}

fn spin() -> ! {
    loop {
        black_box(0);
    }
}

#[cfg(target_arch = "wasm32")]
fn trap() -> ! {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn trap() -> ! {
    std::process::abort()
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1)) + 1)
}

fn hoard() -> usize {
    let mut kept = Vec::new();
    loop {
        kept.push(vec![1_u8; 1 << 20]);
        black_box(&kept);
    }
}

#[allow(unsafe_code)]
fn count() -> u32 {
    // SAFETY: a component has one thread.
    unsafe {
        CALLS += 1;
        CALLS
    }
}

export!(Evil);
