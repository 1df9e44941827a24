import js from "@eslint/js";
import globals from "globals";

export default [
  js.configs.recommended,
  {
    languageOptions: { globals: { ...globals.browser, ...globals.worker, GeoTIFF: "readonly" } },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "eqeqeq": "error",
      "max-depth": ["error", 5],
      "max-lines": ["error", 400],
      "max-lines-per-function": ["error", 70],
      "no-shadow": "error",
      "no-var": "error",
      "prefer-const": "error",
    },
  },
];
