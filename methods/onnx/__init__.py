"""Networks as ONNX files: written, compared with torch, quantised, run by onnxruntime."""
