-- Health of every kind of Legion. Healthy: this generation has its model, or the object can be used. Degraded: only a
-- change of the spec helps. Suspended: a suspended training. Progressing: everything else, such as a training that works
-- or waits.
local hs = { status = "Progressing", message = "the operator has not reconciled it yet" }
local status = obj.status
if status == nil or status.conditions == nil then
  return hs
end
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
-- The main condition of a training is Succeeded, that of the other kinds is Ready.
local main = found.Succeeded or found.Ready
if main ~= nil then
  hs.message = main.reason .. ": " .. main.message
end
-- Conditions of an earlier generation do not count for this one.
if status.observedGeneration ~= obj.metadata.generation then
  hs.message = "generation " .. tostring(obj.metadata.generation) .. " has not been reconciled yet"
  return hs
end
if main ~= nil and main.reason == "Suspended" then
  hs.status = "Suspended"
elseif found.Reconciling ~= nil and found.Reconciling.status == "True" then
  hs.status = "Progressing"
elseif found.Stalled ~= nil and found.Stalled.status == "True" then
  hs.status = "Degraded"
elseif found.Ready ~= nil and found.Ready.status == "True" then
  hs.status = "Healthy"
end
return hs
