//! What SQL lacks for addresses: `ip(binary) -> text` and `ip_bin(text) -> binary`.

use std::net::IpAddr;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, StringBuilder};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;

use crate::lake::{address_bytes, address_from_bytes};

pub(super) fn register(session: &SessionContext) {
    let (text, binary) = (DataType::Utf8, DataType::Binary);
    session.register_udf(create_udf(
        "ip",
        vec![binary.clone()],
        text.clone(),
        Volatility::Immutable,
        Arc::new(|arguments: &[ColumnarValue]| map(arguments, to_text)),
    ));
    session.register_udf(create_udf(
        "ip_bin",
        vec![text],
        binary,
        Volatility::Immutable,
        Arc::new(|arguments: &[ColumnarValue]| map(arguments, to_binary)),
    ));
}

/// Applies a function of one column to a column or to a constant, which stays a constant: the planner can then
/// skip files by it.
fn map(
    arguments: &[ColumnarValue],
    function: fn(&ArrayRef) -> Result<ArrayRef, DataFusionError>,
) -> Result<ColumnarValue, DataFusionError> {
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
    for value in array.as_binary::<i32>() {
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
    for value in array.as_string::<i32>() {
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
