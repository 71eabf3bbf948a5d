// Hive Gateway over gRPC departments: each becomes a GraphQL subgraph (@omnigraph/grpc), composed by Mesh Compose, served
// by Hive Gateway's own runtime with its JIT plugin (the command line's --jit).
//
// node gateway.js SETTINGS, a JSON file: port, certificate (key and chain), bundle, proto, protos (folders),
// departments: [{agency, name, target}]. The command line's server asks no client for a certificate; here Node's does.
import fs from "node:fs";
import https from "node:https";
import { createGatewayRuntime, createLoggerFromLogging } from "@graphql-hive/gateway";
import { getComposedSchemaFromConfig } from "@graphql-mesh/compose-cli";
import { useJIT } from "@graphql-mesh/plugin-jit";
import { loadGrpcSubgraph } from "@omnigraph/grpc";

const settings = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const own = fs.readFileSync(settings.certificate);
const log = createLoggerFromLogging("error");
const credentialsSsl = {
  rootCA: settings.bundle,
  certChain: settings.certificate,
  privateKey: settings.certificate,
};
const load = { includeDirs: settings.protos, keepCase: true };
const quiet = { debug() {}, info() {}, log() {}, warn: console.warn, error: console.error, child: () => quiet };

const supergraph = await getComposedSchemaFromConfig(
  {
    subgraphs: settings.departments.map(({ agency, target, proto }) => ({
      sourceHandler: loadGrpcSubgraph(agency, { endpoint: target, source: { file: proto, load }, credentialsSsl }),
    })),
  },
  quiet,
);
if (settings.supergraph) fs.writeFileSync(settings.supergraph, supergraph);

const runtime = createGatewayRuntime({
  supergraph,
  logging: "error",
  landingPage: false,
  // What a department's certificate must be good for; composing keeps no channel options.
  transportEntries: Object.fromEntries(
    settings.departments.map(({ agency, name }) => [
      agency,
      { options: { channelOptions: [["grpc.ssl_target_name_override", name], ["grpc.default_authority", name]] } },
    ]),
  ),
  plugins: () => [useJIT()],
});
const tls = {
  key: own,
  cert: own,
  ca: fs.readFileSync(settings.bundle),
  requestCert: true,
  rejectUnauthorized: true,
  minVersion: "TLSv1.3",
};
https.createServer(tls, runtime).listen(settings.port, "127.0.0.1", () => log.info("listening"));
