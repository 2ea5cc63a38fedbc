//! A panic tells the host what happened before it traps; on wasm32-unknown-unknown there is no stderr to tell it otherwise.

use std::panic;

use crate::logging::{Level, log};

/// Runs when the component is instantiated, so that no plugin can forget it.
#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    install();
}

/// What `_initialize` does; of no use outside a component.
#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
fn install() {
    panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string(), &[])));
}
