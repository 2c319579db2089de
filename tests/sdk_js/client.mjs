// Drives the official JavaScript SDK as tests/test_sdk_js.py asks: one JSON command a line in, one JSON event a line out.
// With Protobuf the SDK takes and gives data as bytes; what we put into them is JSON.
import { createInterface } from "node:readline";
import WebSocket from "ws";

// With a fourth argument the SDK has no WebSocket: it hears by an HTTP stream, and speaks to the address given there.
const [url, token, language, emulation] = process.argv.slice(2);
const binary = language === "protobuf";
const { Centrifuge } = await import(binary ? "centrifuge/build/protobuf" : "centrifuge");
const out = (data) => (binary ? new TextEncoder().encode(JSON.stringify(data)) : data);
const read = (data) => (binary ? JSON.parse(new TextDecoder().decode(data)) : data);
const tell = (event, details = {}) => process.stdout.write(JSON.stringify({ event, ...details }) + "\n");

const stream = [{ transport: "http_stream", endpoint: url }];
const client = new Centrifuge(emulation ? stream : url, {
  protocol: language,
  emulationEndpoint: emulation,
  websocket: WebSocket,
  token: token || "",
  getToken: async () => token,
  minReconnectDelay: 50,
  maxReconnectDelay: 200,
});
for (const event of ["connected", "disconnected", "error"]) {
  client.on(event, (context) => tell(event, { code: context.code, client: context.client }));
}
const subscriptions = new Map();

const commands = {
  async subscribe({ room, token }) {
    const subscription = client.newSubscription(room, { recoverable: true, joinLeave: true, token });
    subscriptions.set(room, subscription);
    subscription.on("publication", ({ data, offset, info, tags }) =>
      tell("publication", { data: read(data), offset, tags, user: info?.user }),
    );
    subscription.on("join", ({ info }) => tell("join", { user: info.user }));
    subscription.on("leave", ({ info }) => tell("leave", { user: info.user }));
    subscription.on("subscribed", ({ recovered, wasRecovering }) => tell("subscribed", { recovered, wasRecovering }));
    subscription.subscribe();
    await subscription.ready();
    return {};
  },
  publish: ({ room, data }) => client.publish(room, out(data)),
  history: ({ room, limit }) => client.history(room, { limit }),
  presence: ({ room }) => client.presence(room),
  presenceStats: ({ room }) => client.presenceStats(room),
  rpc: async ({ method, data }) => ({ data: read((await client.rpc(method, out(data))).data) }),
};

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const { do: name, ...parameters } = JSON.parse(line);
    try {
      tell("done", { do: name, result: await commands[name](parameters) });
    } catch (error) {
      tell("refused", { do: name, code: error.code, message: error.message });
    }
  })
  .on("close", () => client.disconnect());

client.connect();
