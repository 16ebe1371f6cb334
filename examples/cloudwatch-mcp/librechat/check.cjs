// Reads librechat.yaml as JSON from standard input and prints what LibreChat makes of it, or its errors with status 1.
const { configSchema } = require(process.argv[2]);
const result = configSchema.safeParse(JSON.parse(require("node:fs").readFileSync(0, "utf8")));
process.stdout.write(JSON.stringify(result.success ? result.data : result.error.issues));
process.exitCode = result.success ? 0 : 1;
