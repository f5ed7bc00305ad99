//! What SQL lacks for addresses: `ip(binary) -> text` and `ip_bin(text) -> binary`; and what it has too much of.

use std::net::IpAddr;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, StringBuilder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, Volatility};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;

use crate::lake::{address_bytes, address_from_bytes};

/// Functions whose result is as large as one of their numbers says: outside of the engine's accounting, so that
/// one short question could take all memory of the machine. The table function `generate_series` stays.
const UNBOUNDED: [&str; 9] = [
    "array_repeat",
    "array_resize",
    "generate_series",
    "list_repeat",
    "list_resize",
    "lpad",
    "range",
    "repeat",
    "rpad",
];

pub(super) fn register(session: &SessionContext) {
    for name in UNBOUNDED {
        session.deregister_udf(name);
    }
    let functions: [(&str, DataType, Function); 2] =
        [("ip", DataType::Utf8, to_text), ("ip_bin", DataType::Binary, to_binary)];
    for (name, returns, function) in functions {
        // The engine reads columns as views, files may hold fixed sizes: any type is taken and cast.
        let signature = Signature::any(1, Volatility::Immutable);
        let apply = Arc::new(move |arguments: &[ColumnarValue]| map(arguments, function));
        let udf = SimpleScalarUDF::new_with_signature(name, signature, returns, apply);
        session.register_udf(ScalarUDF::from(udf));
    }
}

type Function = fn(&ArrayRef) -> Result<ArrayRef, DataFusionError>;

/// Applies a function of one column to a column or to a constant, which stays a constant: the planner can then
/// skip files by it.
fn map(arguments: &[ColumnarValue], function: Function) -> Result<ColumnarValue, DataFusionError> {
    match arguments {
        [ColumnarValue::Array(array)] => function(array).map(ColumnarValue::Array),
        [ColumnarValue::Scalar(value)] => {
            let result = function(&value.to_array()?)?;
            ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar)
        }
        other => Err(wrong(format!("one argument, not {}", other.len()))),
    }
}

fn wrong(what: String) -> DataFusionError {
    DataFusionError::Execution(what)
}

fn to_text(array: &ArrayRef) -> Result<ArrayRef, DataFusionError> {
    let mut texts = StringBuilder::with_capacity(array.len(), array.len() * 16);
    let binaries = cast(array, &DataType::Binary)?;
    for value in binaries.as_binary::<i32>() {
        match value {
            None => texts.append_null(),
            Some(bytes) => {
                let ip = address_from_bytes(bytes).ok_or_else(|| {
                    wrong(format!("ip(): an address has 16 bytes, not {}", bytes.len()))
                })?;
                texts.append_value(ip.to_string());
            }
        }
    }
    Ok(Arc::new(texts.finish()))
}

fn to_binary(array: &ArrayRef) -> Result<ArrayRef, DataFusionError> {
    let mut binaries = BinaryBuilder::with_capacity(array.len(), array.len() * 16);
    let texts = cast(array, &DataType::Utf8)?;
    for value in texts.as_string::<i32>() {
        match value {
            None => binaries.append_null(),
            Some(text) => {
                let ip: IpAddr = text
                    .trim()
                    .parse()
                    .map_err(|_syntax| wrong(format!("ip_bin(): {text:?} is no IP address")))?;
                binaries.append_value(address_bytes(ip));
            }
        }
    }
    Ok(Arc::new(binaries.finish()))
}
